package realtime

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

// tokenHash tells tokens apart without keeping them.
type tokenHash [sha256.Size]byte

// verified is a token that was checked, with its claims. The keys do not change
// while the process runs, so that a token once good stays so until it expires.
type verified struct {
	hash   tokenHash
	claims sluice.Claims
}

// verify checks a token. Called with handleMu held. The channels of a socket
// mostly share one token; it is checked and kept once.
func (c *conn) verify(token string) (verified, *sluice.Refusal) {
	v := verified{hash: sha256.Sum256([]byte(token))}
	if v.hash == c.lastToken.hash && !hasExpired(c.lastToken.claims) {
		return c.lastToken, nil
	}
	claims, err := c.srv.cfg.Tokens.Verify(token)
	if err == nil && hasExpired(claims) {
		err = sluice.Refuse(sluice.CodeInvalidJWTToken).WithText("%s", expiredText(claims))
	}
	if err != nil {
		var r *sluice.Refusal
		if !errors.As(err, &r) {
			r = sluice.Refuse(sluice.CodeInternal).WithCause(err)
		}
		if r.Code == sluice.CodeInvalidJWTToken {
			c.logRefused(token, r)
		}
		return verified{}, r
	}
	v.claims = claims
	c.lastToken = v
	return v, nil
}

func hasExpired(cl sluice.Claims) bool {
	return !cl.ExpiresAt.IsZero() && !cl.ExpiresAt.After(time.Now())
}

func expiredText(cl sluice.Claims) string {
	return fmt.Sprintf("Token has expired %d seconds ago", int64(time.Since(cl.ExpiresAt)/time.Second))
}

// refusedClaims are claims of a token that was refused with InvalidJWTToken
// alone: its signature is good, a claim is missing or it has expired.
type refusedClaims struct {
	Sub string   `json:"sub"`
	Iss string   `json:"iss"`
	Exp *float64 `json:"exp"`
}

func peek(token string) (cl refusedClaims) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return cl
	}
	if b, err := base64.RawURLEncoding.DecodeString(parts[1]); err == nil {
		_ = json.Unmarshal(b, &cl) // what does not fit stays empty
	}
	return cl
}

// saysExpired tells an expired token from one that lacks a claim.
func saysExpired(token string) bool {
	exp := peek(token).Exp
	return exp != nil && *exp <= float64(time.Now().Unix())
}

// logRefused says whose token was refused.
func (c *conn) logRefused(token string, r *sluice.Refusal) {
	cl := peek(token)
	attrs := append(c.logAttrs(nil), sluice.LogCode, r.Code, "text", r.Text, "sub", cl.Sub, "iss", cl.Iss)
	if cl.Exp != nil {
		attrs = append(attrs, "exp", int64(*cl.Exp))
	}
	c.srv.log.Warn("token refused", attrs...)
}

// tokenText is the text of the system message for a refused refresh.
func (s *Server) tokenText(r *sluice.Refusal) string {
	switch {
	case s.cfg.Explain:
		return r.Text + " | " + string(r.Code) + ": " + r.Remedy
	case r.Code == sluice.CodeJwtSignatureError:
		return ":signature_error" // the original's own words
	}
	return r.Text
}

// setClaims gives the channel an identity and sets its expiry.
func (ch *channel) setClaims(v verified) {
	ch.claims, ch.token, ch.expires = v.claims, v.hash, 0
	if !v.claims.ExpiresAt.IsZero() {
		ch.expires = v.claims.ExpiresAt.UnixNano()
	}
}

// Texts of ours in system messages about tokens.
const (
	textOtherUser = "The new token belongs to another user; leave the channel and join it again"
	textResumed   = "Token was refreshed; broadcasts sent while it had expired were not delivered, changes follow"
)

// accessToken acts on an access_token event. There is never a reply.
func (ch *channel) accessToken(m *phoenix.Message) {
	c := ch.conn
	t := phoenix.ParseAccessToken(m.Payload)
	switch {
	case t.Unknown:
		c.srv.limits.events.add(1)
		c.srv.metrics.DroppedUnknown.Add(1)
		return
	case t.Ignore, sha256.Sum256([]byte(t.Token)) == ch.token:
		return
	}
	v, refusal := c.verify(t.Token)
	switch {
	case refusal != nil:
		c.srv.log.Warn("access token refused", append(c.logAttrs(ch), sluice.LogCode, refusal.Code, sluice.LogError, refusal.Text)...)
		if refusal.Code == sluice.CodeInvalidJWTToken && saysExpired(t.Token) && c.srv.cfg.TokenExpiry == ExpiryMute {
			c.mute(ch, c.srv.tokenText(refusal))
			return
		}
		c.shutdown(ch, extSystem, c.srv.tokenText(refusal))
		return
	case ch.claims.Subject != "" && v.claims.Subject != "" && ch.claims.Subject != v.claims.Subject:
		c.shutdown(ch, extSystem, textOtherUser)
		return
	}
	ch.setClaims(v)
	wasExpired := ch.expired
	ch.expired = false
	c.rearm()
	if ch.key.Private {
		ch.reauthorize(wasExpired)
		return
	}
	ch.renew(wasExpired)
}

// renew goes on under new claims.
func (ch *channel) renew(wasExpired bool) {
	if ch.changes == nil {
		if wasExpired {
			ch.resume()
		}
		return
	}
	ch.refreshChanges(wasExpired)
}

// expire acts on the tokens that have expired. Called with handleMu held.
func (c *conn) expire(now time.Time) {
	for i := 0; i < len(c.channels); {
		ch := c.channels[i]
		if ch.expires == 0 || ch.expires > now.UnixNano() || ch.expired || ch.work != nil {
			i++
			continue
		}
		text := expiredText(ch.claims)
		if c.srv.cfg.TokenExpiry == ExpiryClose {
			c.shutdown(ch, extSystem, text) // takes ch out of c.channels
			continue
		}
		c.mute(ch, text)
		i++
	}
	c.rearm()
}

// mute stops delivery and writes of a channel whose token has expired. The
// channel stays joined, and what it had tracked comes back with a fresh token.
func (c *conn) mute(ch *channel, text string) {
	if ch.expired {
		return
	}
	ch.expired = true
	var sub sluice.LiveSubscription
	if x := ch.changes; x != nil && x.sub != nil {
		sub, x.mutedAt = x.sub, x.sub.Position()
	}
	ch.closeChanges(true)
	if sub != nil { // nothing is delivered any more
		ch.changes.seen = sub.Seen()
	}
	c.srv.log.Info("channel muted: token expired", c.logAttrs(ch)...)
	ch.retained = c.srv.hub.mute(ch, func() { ch.system(extSystem, phoenix.StatusError, text) })
	c.rearm()
}

// resume undoes mute.
func (ch *channel) resume() {
	hub := ch.conn.srv.hub
	hub.unmute(ch, func(t *topic) {
		ch.system(extSystem, phoenix.StatusOK, textResumed)
		if ch.presenceOn {
			ch.sendState(t)
		}
	})
	if ch.retained != nil {
		hub.track(ch, ch.retained)
		ch.retained = nil
	}
}

// refreshChanges hands the new claims to the change feed, or subscribes again
// after a mute. Nothing is delivered under the old claims once it fails.
func (ch *channel) refreshChanges(wasExpired bool) {
	claims, sub := ch.claims, ch.changes.sub
	if sub != nil {
		var notices []*sluice.Refusal
		var err error
		ch.start(func(ctx context.Context) {
			notices, err = sub.SetClaims(ctx, claims)
		}, func() {
			ch.refreshed(wasExpired, notices, err)
		}, func() {}) // whoever dropped the channel has ended it
		return
	}
	var live subscribed
	resume := ch.resumption()
	ch.start(func(ctx context.Context) {
		live = ch.subscribe(ctx, claims, resume)
	}, func() {
		ch.changes.sub, ch.changes.mutedAt = live.sub, 0
		ch.refreshed(wasExpired, live.notices, live.err)
	}, func() { live.end(ch) })
}

func (ch *channel) refreshed(wasExpired bool, notices []*sluice.Refusal, err error) {
	var se *sluice.SubscribeError
	if err != nil && !errors.As(err, &se) {
		ch.conn.fail(ch, ch.conn.srv.reason(asRefusal(err)))
		return
	}
	if err != nil {
		ch.closeChanges(false)
	}
	if wasExpired {
		ch.resume()
	}
	ch.announceChanges(notices, err)
	ch.logChanges(notices, err)
	ch.conn.rearm()
}
