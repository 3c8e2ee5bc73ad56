package realtime

import (
	"context"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

// right is what is known about one permission of a private channel. Rights are
// asked when they are first needed and stand until the channel gets another
// token.
type right uint8

const (
	unasked right = iota
	denied
	granted
)

// rights are a private channel's four permissions.
type rights struct{ read, write [extensions]right }

// put takes an answer over for the extensions that were asked about.
func put(to *[extensions]right, q *probe, a answer) {
	for _, e := range q.of {
		to[e] = denied
		if a.allowed[e] {
			to[e] = granted
		}
	}
}

// askPause is how long a channel's writes are dropped without asking again after
// a check that raised an error: a client decides how often it sends.
const askPause = time.Second

// Texts of the original for channels that lose their topic with a new token.
const (
	textNoRead      = "You do not have permissions to read from this Channel topic: %s"
	textReadIsGone  = "You no longer have permission to read from this Channel topic: %s"
	textCancelled   = "Query was cancelled, please try again"
	textNoPool      = ":increase_connection_pool" // as the original inspects it
	textNoPartition = ":missing_partition"
)

func (ch *channel) probe(write bool, of ...extension) *probe {
	return &probe{claims: ch.claims, topic: ch.key.Name, headers: ch.conn.headers, write: write, of: of}
}

// readProbe asks what the channel may read. Presence is left out as long as
// nobody has asked for it.
func (ch *channel) readProbe() *probe {
	if ch.presenceOn {
		return ch.probe(false, broadcasts, presences)
	}
	return ch.probe(false, broadcasts)
}

// noRead is the refusal of an identity that may read nothing on the topic.
func (ch *channel) noRead() *sluice.Refusal {
	return sluice.Refuse(sluice.CodeUnauthorized).WithText(textNoRead, ch.key.Name)
}

// refusal turns the answer to a read probe into what a join is told, nil when
// something may be read. A policy that raised an error is a no; the log has it.
func (ch *channel) refusal(a answer) *sluice.Refusal {
	switch {
	case a.err == nil && a.allowed != [extensions]bool{}:
		return nil
	case a.err == nil:
		return ch.noRead()
	case a.err.Code == sluice.CodePolicyError:
		return ch.noRead().WithRemedy("%s", a.err.Remedy).WithCause(a.err.Cause)
	}
	return a.err
}

// logCheck says why a check could not be decided. code is the original's for the
// place; a policy's error, and too many checks at once, have their own.
func (ch *channel) logCheck(code string, r *sluice.Refusal) {
	if r.Code == sluice.CodePolicyError || r.Code == sluice.CodePoolExhausted {
		code = string(r.Code)
	}
	ch.conn.srv.log.Warn("policies of realtime.messages gave no answer", append(ch.conn.logAttrs(ch), sluice.LogCode, code, "text", r.Text, sluice.LogError, r.Cause)...)
}

// setRead takes the answer to a read probe over. The channel must not be
// subscribed yet, or the topic be locked.
func (ch *channel) setRead(q *probe, a answer) {
	put(&ch.rights.read, q, a)
	ch.deaf = ch.rights.read[broadcasts] != granted
	ch.blind = ch.rights.read[presences] != granted
}

// writeProbe asks what the channel may write, as far as it is not known.
func (ch *channel) writeProbe() *probe {
	q := ch.probe(true)
	for e, known := range ch.rights.write {
		if known == unasked && (extension(e) == broadcasts || ch.presenceOn) {
			q.of = append(q.of, extension(e))
		}
	}
	return q
}

// askWrite asks what the channel may write, and, when presence was not asked for
// at the join, whether it may see that. m, whose fate depends on it, goes to
// again with the answer, or to failed when there is none. e is what m wants to be.
func (ch *channel) askWrite(m *phoenix.Message, e extension, again, failed func(m *phoenix.Message)) {
	c := ch.conn
	if c.srv.now() < ch.askAgain {
		failed(m)
		return
	}
	kept := keep(m)
	write, read := ch.writeProbe(), ch.probe(false, presences)
	if !ch.presenceOn || ch.rights.read[presences] != unasked {
		read = nil
	}
	var mayWrite, mayRead answer
	ch.start(func(ctx context.Context) {
		if read != nil {
			mayRead = c.srv.policies.ask(ctx, read)
		}
		if mayRead.err == nil {
			mayWrite = c.srv.policies.ask(ctx, write)
		}
	}, func() {
		err := mayRead.err
		if err == nil {
			err = mayWrite.err
		}
		if err != nil {
			ch.askAgain = c.srv.now() + int64(askPause)
			ch.logCheck(unableToHandle[e], err)
			failed(&kept)
			return
		}
		put(&ch.rights.write, write, mayWrite)
		if read != nil {
			c.srv.hub.withTopic(ch, func(*topic) { ch.setRead(read, mayRead) })
		}
		if ch.rights.write[e] == denied {
			ch.explainDenied(e)
		}
		again(&kept)
	}, func() {})
	ch.work.needed = true // m was sent before any leave
}

// unableToHandle are the original's log codes for writes that were not decided.
var unableToHandle = [extensions]string{"UnableToHandleBroadcast", "UnableToHandlePresence"}

// explainDenied says once for a token why what the channel writes reaches nobody:
// a stock client is told nothing about broadcasts that are dropped.
func (ch *channel) explainDenied(e extension) {
	c := ch.conn
	r := sluice.Refuse(sluice.CodeUnauthorized).WithText("You do not have permissions to write to this Channel topic: %s", ch.key.Name).
		WithRemedy("Add an INSERT policy on realtime.messages for this role and topic, for rows whose extension is '%s'.", extensionNames[e])
	c.srv.log.Warn("private channel may not write", append(c.logAttrs(ch), sluice.LogCode, r.Code, "extension", extensionNames[e])...)
	if c.srv.cfg.Explain {
		ch.system(extSystem, statusWarning, r.Explain())
	}
}

// reauthorize asks again after a refresh of the token, at once what may be read;
// the rest when it is needed. What the channel had tracked before it was muted
// comes back if it may still be written.
func (ch *channel) reauthorize(wasExpired bool) {
	policies := ch.conn.srv.policies
	ch.rights.write, ch.askAgain = [extensions]right{}, 0
	read, write := ch.readProbe(), ch.probe(true, presences)
	if ch.retained == nil {
		write = nil
	}
	var mayRead, mayWrite answer
	ch.start(func(ctx context.Context) {
		mayRead = policies.ask(ctx, read)
		if write != nil && mayRead.err == nil {
			mayWrite = policies.ask(ctx, write)
		}
	}, func() {
		if write != nil && !mayWrite.allowed[presences] {
			ch.retained = nil
		}
		if ch.reauthorized(read, mayRead) {
			ch.renew(wasExpired)
		}
	}, func() {})
	ch.work.needed = true // what is sent before a leave goes out under the new token
}

// reauthorized acts on the answer for a new token and reports whether the
// channel goes on.
func (ch *channel) reauthorized(q *probe, a answer) bool {
	c := ch.conn
	before := ch.rights.read
	refusal := ch.refusal(a)
	switch {
	case refusal != nil && refusal.Code != sluice.CodeUnauthorized:
		ch.logCheck("UnableToSetPolicies", a.err)
		ch.failRefresh(refusal)
		return false
	case refusal != nil:
		if a.err != nil {
			ch.logCheck("UnableToSetPolicies", a.err)
		}
		c.shutdown(ch, extSystem, c.srv.tokenText(refusal))
		return false
	case before[broadcasts] == granted && !a.allowed[broadcasts], before[presences] == granted && !a.allowed[presences]:
		c.shutdown(ch, extSystem, c.srv.tokenText(ch.noRead().WithText(textReadIsGone, ch.key.Name)))
		return false
	}
	c.srv.hub.withTopic(ch, func(t *topic) {
		ch.setRead(q, a)
		if before[presences] != granted && !ch.muted {
			ch.sendState(t)
		}
	})
	return true
}

// failRefresh ends a channel whose new token could not be judged, in the
// original's words. phx_error stands in the place of its phx_close: a stock client
// then joins again by itself, which it can once the database answers.
func (ch *channel) failRefresh(r *sluice.Refusal) {
	switch r.Code {
	case sluice.CodeQueryCanceled:
		r = r.WithText(textCancelled)
	case sluice.CodePoolExhausted:
		r = r.WithText(textNoPool)
	case sluice.CodeMissingPartition:
		r = r.WithText(textNoPartition)
	}
	text := ch.conn.srv.tokenText(r)
	ch.system(extSystem, phoenix.StatusError, text)
	ch.conn.fail(ch, text)
}
