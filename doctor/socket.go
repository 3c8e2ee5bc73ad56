package doctor

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/gobwas/ws"

	"github.com/sluice-dev/sluice/realtime/phoenix"
)

// socket is an open WebSocket, used by one goroutine.
type socket struct {
	conn net.Conn
	r    *bufio.Reader
	vsn  phoenix.Version
	hide *redactor
	ref  int
}

// close says goodbye as far as the other side takes it.
func (s *socket) close() {
	_ = s.conn.SetDeadline(time.Now().Add(time.Second))
	_ = ws.WriteFrame(s.conn, ws.MaskFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusNormalClosure, ""))))
	_ = s.conn.Close()
}

// message is one message of the server. binary frames carry the user's
// broadcasts of version 2.0.0; they are searched, not decoded.
type message struct {
	phoenix.Message
	binary []byte
}

// closed is the server's end of the socket.
type closed struct {
	code   ws.StatusCode
	reason string
}

func (c *closed) Error() string {
	return fmt.Sprintf("the server closed the socket with code %d %s", c.code, c.reason)
}

// maxFrame bounds a message of the server: the largest that Realtime sends.
const maxFrame = 8 << 20

// send writes one message and returns its reference.
func (s *socket) send(joinRef phoenix.Ref, topic, event string, payload []byte) (phoenix.Ref, error) {
	s.ref++
	ref := phoenix.Ref(strconv.Quote(strconv.Itoa(s.ref)))
	if event == phoenix.EventJoin {
		joinRef = ref
	}
	text := phoenix.AppendMessage(nil, s.vsn, joinRef, ref, topic, event, payload)
	if err := ws.WriteFrame(s.conn, ws.MaskFrame(ws.NewTextFrame(text))); err != nil {
		return "", fmt.Errorf("write %s: %w", event, err)
	}
	return ref, nil
}

// read returns the server's next message. Pings are answered.
func (s *socket) read() (message, error) {
	var whole []byte
	binary := false
	for {
		h, err := ws.ReadHeader(s.r)
		if err != nil {
			return message{}, fmt.Errorf("read frame: %w", err)
		}
		if h.Length > maxFrame || len(whole)+int(h.Length) > maxFrame {
			return message{}, errors.New("the server sent a message of more than 8 MiB")
		}
		payload := make([]byte, h.Length)
		if _, err := io.ReadFull(s.r, payload); err != nil {
			return message{}, fmt.Errorf("read frame: %w", err)
		}
		switch h.OpCode {
		case ws.OpPing:
			if err := ws.WriteFrame(s.conn, ws.MaskFrame(ws.NewPongFrame(payload))); err != nil {
				return message{}, fmt.Errorf("answer a ping: %w", err)
			}
			continue
		case ws.OpPong:
			continue
		case ws.OpClose:
			code, reason := ws.ParseCloseFrameData(payload)
			return message{}, &closed{code, reason}
		case ws.OpText, ws.OpBinary:
			binary = h.OpCode == ws.OpBinary
		}
		if whole = append(whole, payload...); h.Fin {
			break
		}
	}
	if binary {
		return message{binary: whole}, nil
	}
	m, err := phoenix.Decode(s.vsn, whole, false)
	if err != nil {
		return message{}, fmt.Errorf("read message %q: %w", s.hide.cut(string(whole), 120), err)
	}
	return message{Message: m}, nil
}

// await reads until accept takes a message, within one wait.
func (v *visit) await(ctx context.Context, s *socket, accept func(message) bool) error {
	ctx, cancel := v.within(ctx)
	defer cancel()
	start := time.Now()
	_ = s.conn.SetDeadline(time.Time{})
	stop := context.AfterFunc(ctx, func() { _ = s.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		m, err := s.read()
		switch {
		case err != nil && ctx.Err() != nil:
			return fmt.Errorf("nothing came within %s: %w", time.Since(start).Round(100*time.Millisecond), ctx.Err())
		case err != nil:
			return err
		case accept(m):
			return nil
		}
	}
}

// reply is the payload of phx_reply.
type reply struct {
	Status   string          `json:"status"`
	Response json.RawMessage `json:"response"`
}

// reason is the text of an error reply: older servers put the text directly.
func (r reply) reason() string {
	var object struct {
		Reason string `json:"reason"`
	}
	if json.Unmarshal(r.Response, &object) == nil && object.Reason != "" {
		return object.Reason
	}
	var text string
	if json.Unmarshal(r.Response, &text) == nil && text != "" {
		return text
	}
	return string(r.Response)
}

// wrongRef is a reply on the right topic to a message that was never sent.
type wrongRef struct{ sent, got phoenix.Ref }

func (e *wrongRef) Error() string {
	return fmt.Sprintf("sent ref %s, the reply has ref %s", e.sent, e.got)
}

// grace is how long the right reply may come behind a wrong one.
const grace = time.Second

// push sends a message and waits for its reply.
func (v *visit) push(ctx context.Context, s *socket, joinRef phoenix.Ref, topic, event string, payload []byte) (reply, error) {
	ref, err := s.send(joinRef, topic, event, payload)
	if err != nil {
		return reply{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var r reply
	var other phoenix.Ref
	err = v.await(ctx, s, func(m message) bool {
		if m.Event != phoenix.EventReply || m.Topic != topic {
			return false
		}
		if m.Ref != ref {
			if other == "" {
				time.AfterFunc(grace, cancel)
			}
			other = m.Ref
			return false
		}
		return json.Unmarshal(m.Payload, &r) == nil
	})
	if err != nil && other != "" {
		return r, &wrongRef{ref, other}
	}
	return r, err
}
