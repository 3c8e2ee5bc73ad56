// Package goclient is a small Realtime client in Go: protocol version 2.0.0,
// text and binary frames, nothing of Sluice's own. It shows what a client in
// any language has to do; docs/protocol.md tells the same in words. It joins,
// keeps the socket alive, sends and receives broadcasts and receives row
// changes. It does not reconnect: a real client does, and joins again.
package goclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// heartbeatEvery is what stock clients use; the server closes a socket that is
// silent for 60 s.
const heartbeatEvery = 25 * time.Second

// Event is something that arrived on a channel.
type Event struct {
	Topic string // without "realtime:"
	Name  string // broadcast, postgres_changes, system, presence_state, presence_diff, phx_close or phx_error

	// Broadcast is the user's event name of a broadcast.
	Broadcast string
	// Payload is the broadcast's payload, or the whole payload of other events.
	Payload []byte
	// Meta is a broadcast's metadata, a JSON object or empty; messages that
	// came from the database carry their row's id.
	Meta []byte
	// Binary says that Payload is bytes, not JSON.
	Binary bool
}

// Client is one socket. Its methods may be called from several goroutines.
type Client struct {
	conn interface {
		Read([]byte) (int, error)
		Write([]byte) (int, error)
		Close() error
	}
	handle func(Event) // called by the reader, in order

	writing sync.Mutex // one frame at a time

	mu      sync.Mutex
	ref     int
	joins   map[string]string     // join ref by topic
	waiting map[string]chan reply // by ref
	err     error                 // why the socket ended
	done    chan struct{}
}

type reply struct {
	Status   string          `json:"status"`
	Response json.RawMessage `json:"response"`
}

// ReplyError is a push that the server answered with status error.
type ReplyError struct{ Reason string }

func (e *ReplyError) Error() string { return e.Reason }

// Dial opens a socket to the project at projectURL (http://127.0.0.1:54321)
// with its publishable key. Every event is handed to handle, in order. Close
// ends it.
func Dial(ctx context.Context, projectURL, key string, handle func(Event)) (*Client, error) {
	u, err := url.Parse(projectURL)
	if err != nil {
		return nil, fmt.Errorf("read project URL: %w", err)
	}
	u.Scheme = strings.Replace(u.Scheme, "http", "ws", 1)
	u = u.JoinPath("realtime/v1/websocket")
	u.RawQuery = url.Values{"apikey": {key}, "vsn": {"2.0.0"}}.Encode()
	conn, _, _, err := ws.Dial(ctx, u.String())
	if err != nil {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	c := &Client{
		conn: conn, handle: handle,
		joins: map[string]string{}, waiting: map[string]chan reply{}, done: make(chan struct{}),
	}
	go c.read()      // ends with the socket; Close waits
	go c.heartbeat() // ends with done
	return c, nil
}

// Close closes the socket and waits for its reader.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.done
	return err
}

// Join opens a channel and returns when the server says that it is open; from
// then on every row that matches is delivered. config is the join's "config"
// member, token the user's access token or empty.
func (c *Client) Join(ctx context.Context, topic string, config any, token string) error {
	ref := c.nextRef()
	c.mu.Lock()
	c.joins[topic] = ref
	c.mu.Unlock()
	payload := map[string]any{"config": config}
	if token != "" {
		payload["access_token"] = token
	}
	return c.push(ctx, ref, ref, topic, "phx_join", payload)
}

// Leave closes a channel.
func (c *Client) Leave(ctx context.Context, topic string) error {
	return c.push(ctx, c.joinRef(topic), c.nextRef(), topic, "phx_leave", struct{}{})
}

// Send broadcasts a JSON payload; with an "ack" in the channel's config it
// could wait for a reply, here it does not.
func (c *Client) Send(topic, event string, payload any) error {
	b, err := json.Marshal(payload)
	if err != nil {
		return fmt.Errorf("encode payload of %q: %w", event, err)
	}
	return c.broadcast(topic, event, b, 1)
}

// SendBinary broadcasts bytes. Clients of version 1.0.0 do not receive them.
func (c *Client) SendBinary(topic, event string, payload []byte) error {
	return c.broadcast(topic, event, payload, 0)
}

// broadcast writes a frame of kind 3: sizes of one byte each, then the fields.
func (c *Client) broadcast(topic, event string, payload []byte, encoding byte) error {
	fields := []string{c.joinRef(topic), c.nextRef(), "realtime:" + topic, event, ""} // the last is metadata
	frame := []byte{3}
	for _, f := range fields {
		if len(f) > 255 {
			return fmt.Errorf("send %q on %q: a field is longer than 255 bytes", event, topic)
		}
		frame = append(frame, byte(len(f)))
	}
	frame = append(frame, encoding)
	for _, f := range fields {
		frame = append(frame, f...)
	}
	return c.write(ws.OpBinary, append(frame, payload...))
}

func (c *Client) joinRef(topic string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.joins[topic]
}

func (c *Client) nextRef() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ref++
	return strconv.Itoa(c.ref)
}

// push sends [join_ref, ref, topic, event, payload] and waits for the reply.
func (c *Client) push(ctx context.Context, joinRef, ref, topic, event string, payload any) error {
	answer := make(chan reply, 1)
	c.mu.Lock()
	c.waiting[ref] = answer
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, ref)
		c.mu.Unlock()
	}()
	text, err := json.Marshal([]any{joinRef, ref, "realtime:" + topic, event, payload})
	if err != nil {
		return fmt.Errorf("encode %s on %q: %w", event, topic, err)
	}
	if err := c.write(ws.OpText, text); err != nil {
		return err
	}
	select {
	case r := <-answer:
		if r.Status != "ok" {
			var why struct{ Reason string }
			_ = json.Unmarshal(r.Response, &why) // else the reason stays empty
			return fmt.Errorf("%s on %q: %w", event, topic, &ReplyError{why.Reason})
		}
		return nil
	case <-c.done:
		return fmt.Errorf("%s on %q: %w", event, topic, c.err)
	case <-ctx.Done():
		return fmt.Errorf("%s on %q: %w", event, topic, ctx.Err())
	}
}

func (c *Client) write(op ws.OpCode, payload []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := wsutil.WriteClientMessage(c.conn, op, payload); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	return nil
}

func (c *Client) heartbeat() {
	tick := time.NewTicker(heartbeatEvery)
	defer tick.Stop()
	for {
		select {
		case <-c.done:
			return
		case <-tick.C:
			text, _ := json.Marshal([]any{nil, c.nextRef(), "phoenix", "heartbeat", struct{}{}}) // strings alone
			if c.write(ws.OpText, text) != nil {
				return // the reader sees why
			}
		}
	}
}

func (c *Client) read() {
	defer close(c.done)
	for {
		payload, op, err := wsutil.ReadServerData(c.conn) // answers pings
		if err == nil {
			err = c.receive(payload, op)
		}
		if err != nil {
			c.err = err
			return
		}
	}
}

func (c *Client) receive(frame []byte, op ws.OpCode) error {
	if op == ws.OpBinary {
		e, err := decodeBroadcast(frame)
		if err == nil {
			c.handle(e)
		}
		return err
	}
	var m [5]json.RawMessage
	if err := json.Unmarshal(frame, &m); err != nil {
		return fmt.Errorf("read text frame: %w", err)
	}
	var ref, topic, event string
	for i, to := range map[int]*string{1: &ref, 2: &topic, 3: &event} {
		if err := json.Unmarshal(m[i], to); err != nil { // null leaves it empty
			return fmt.Errorf("read text frame: %w", err)
		}
	}
	if event == "phx_reply" {
		var r reply
		if err := json.Unmarshal(m[4], &r); err != nil {
			return fmt.Errorf("read reply: %w", err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if w := c.waiting[ref]; w != nil {
			w <- r // one reply for a ref
			delete(c.waiting, ref)
		}
		return nil
	}
	e := Event{Topic: strings.TrimPrefix(topic, "realtime:"), Name: event, Payload: m[4]}
	if event == "broadcast" { // came as text: replayed, or sent by HTTP or an old client
		var b struct {
			Event   string
			Payload json.RawMessage
			Meta    json.RawMessage
		}
		if err := json.Unmarshal(m[4], &b); err == nil {
			e.Broadcast, e.Payload, e.Meta = b.Event, b.Payload, b.Meta
		}
	}
	c.handle(e)
	return nil
}

// decodeBroadcast reads a frame of kind 4.
func decodeBroadcast(frame []byte) (Event, error) {
	const head = 5
	if len(frame) < head || frame[0] != 4 {
		return Event{}, errors.New("binary frame is no user broadcast")
	}
	topic, event, meta := int(frame[1]), int(frame[2]), int(frame[3])
	rest := frame[head:]
	if len(rest) < topic+event+meta {
		return Event{}, errors.New("binary frame is shorter than its sizes say")
	}
	return Event{
		Name:      "broadcast",
		Topic:     strings.TrimPrefix(string(rest[:topic]), "realtime:"),
		Broadcast: string(rest[topic : topic+event]),
		Meta:      rest[topic+event : topic+event+meta],
		Payload:   rest[topic+event+meta:],
		Binary:    frame[4] == 0,
	}, nil
}
