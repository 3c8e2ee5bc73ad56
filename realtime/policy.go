package realtime

import "github.com/sluice-dev/sluice"

// mayRead decides whether the channel's identity may join its topic. Public
// topics are open. Private ones need the policies of realtime.messages, which
// nobody asks yet: they are refused, never let in unchecked.
func (ch *channel) mayRead() *sluice.Refusal {
	if !ch.key.Private || ch.conn.srv.openPrivate {
		return nil
	}
	return sluice.Refuse(sluice.CodeUnauthorized).
		WithText("private channels are not served yet").
		WithRemedy("Join the topic with private: false, or wait for the release that serves private channels.")
}
