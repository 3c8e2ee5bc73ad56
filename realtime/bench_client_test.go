package realtime_test

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"
)

// The clients of the benchmarks are a process of their own, this test binary
// started again, so that CPU and memory of the server are the server's alone.

// benchEnv holds a benchOrder as JSON in a client process.
const benchEnv = "SLUICE_BENCH_CLIENT"

// benchOrder says what a client process has to do.
type benchOrder struct {
	Addr     string
	Conns    int
	PerTopic int    // receivers of one topic
	Raw      bool   // the raw server: nothing is joined
	Join     string // payload of the joins
	// Do is what follows once all have joined and "go N" came: "send" N messages
	// with Window of them under way, "join" N times, "track" once each.
	Do     string
	Window int
}

// benchResult is what it prints.
type benchResult struct {
	Delivered int64
	Seconds   float64
	Micros    [2]float64 // p50 and p99 of deliveries
}

const benchPayload = 128

// benchMain runs a client process: it prints "ready", waits for "go N", prints a
// benchResult, and ends when its standard input does.
func benchMain(order string) {
	var o benchOrder
	check := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "benchmark client:", err)
			os.Exit(1)
		}
	}
	check(json.Unmarshal([]byte(order), &o))
	g := &benchGroup{o: o}
	check(g.connect())
	fmt.Println("ready")
	in := bufio.NewReader(os.Stdin)
	var n int64
	if _, err := fmt.Fscanf(in, "go %d\n", &n); err == nil {
		check(json.NewEncoder(os.Stdout).Encode(g.run(n)))
	}
	_, _ = io.Copy(io.Discard, in)
}

type benchGroup struct {
	o     benchOrder
	conns []*benchConn

	delivered atomic.Int64
	wanted    atomic.Int64 // wake when delivered reaches it
	wake      chan struct{}
}

type benchConn struct {
	nc     net.Conn
	topic  string
	micros []uint32
}

func (g *benchGroup) connect() error {
	g.conns = make([]*benchConn, g.o.Conns)
	errs := make(chan error, g.o.Conns)
	slots := make(chan struct{}, 32)
	for i := range g.conns {
		slots <- struct{}{}
		go func() { // ends with the handshake; errs is read below
			defer func() { <-slots }()
			errs <- g.dial(i)
		}()
	}
	for range g.conns {
		if err := <-errs; err != nil {
			return err
		}
	}
	return nil
}

func (g *benchGroup) dial(i int) error {
	topic := fmt.Sprintf("%05d", i/g.o.PerTopic)
	nc, err := net.Dial("tcp", g.o.Addr)
	if err != nil {
		return err
	}
	fmt.Fprintf(nc, "GET /websocket?vsn=2.0.0&topic=%s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", topic)
	buf := make([]byte, 1)
	for end := 0; end < 4; { // byte by byte: nothing behind the head may be lost
		if _, err := nc.Read(buf); err != nil {
			return err
		}
		if buf[0] == "\r\n\r\n"[end] {
			end++
		} else {
			end = 0
		}
	}
	c := &benchConn{nc: nc, topic: "realtime:" + topic}
	g.conns[i] = c
	if g.o.Raw || g.o.Join == "" {
		return nil
	}
	return c.join(g.o.Join)
}

// join joins the conn's topic and waits for the reply.
func (c *benchConn) join(payload string) error {
	c.write(ws.OpText, fmt.Appendf(nil, `["1","1",%q,"phx_join",%s]`, c.topic, payload))
	h, err := ws.ReadHeader(c.nc)
	if err == nil {
		_, err = io.CopyN(io.Discard, c.nc, h.Length)
	}
	return err
}

// write sends one frame, masked with a key of zero, which costs nothing.
func (c *benchConn) write(op ws.OpCode, payload []byte) {
	frame := []byte{0x80 | byte(op), 0x80}
	if len(payload) < 126 {
		frame[1] |= byte(len(payload))
	} else {
		frame[1] |= 126
		frame = binary.BigEndian.AppendUint16(frame, uint16(len(payload)))
	}
	frame = append(append(frame, 0, 0, 0, 0), payload...)
	_, _ = c.nc.Write(frame) // a socket that is gone shows in the count
}

// run does what was ordered and returns when every delivery has come.
func (g *benchGroup) run(n int64) benchResult {
	g.wake = make(chan struct{}, 1)
	for _, c := range g.conns {
		if g.o.Do != "join" {
			go c.read(g) // ends with the process
		}
	}
	start := time.Now()
	var result benchResult
	switch g.o.Do {
	case "send":
		result.Delivered = g.send(n)
	case "track":
		result.Delivered = g.track()
	case "join":
		result.Delivered = g.joins(n)
	}
	result.Seconds = time.Since(start).Seconds()
	var micros []uint32 // of readers that have nothing more to read
	for _, c := range g.conns {
		micros = append(micros, c.micros...)
	}
	slices.Sort(micros)
	if len(micros) > 0 {
		result.Micros = [2]float64{float64(micros[len(micros)/2]), float64(micros[len(micros)*99/100])}
	}
	return result
}

// await waits until n frames were delivered in all.
func (g *benchGroup) await(n int64) {
	g.wanted.Store(n)
	for g.delivered.Load() < n {
		<-g.wake
	}
}

// send sends n messages, in turn to each topic.
func (g *benchGroup) send(n int64) int64 {
	topics := (len(g.conns) + g.o.PerTopic - 1) / g.o.PerTopic
	window, per := int64(g.o.Window), int64(g.o.PerTopic)
	for i := range n {
		g.await((i - window + 1) * per)
		c := g.conns[int(i)%topics*g.o.PerTopic]
		head := []byte{3, 1, 1, byte(len(c.topic)), 1, 0, 0}
		frame := append(append(append(head, "11"...), c.topic...), 'e')
		at := len(frame)
		frame = append(frame, make([]byte, benchPayload)...)
		binary.BigEndian.PutUint64(frame[at:], uint64(time.Now().UnixNano()))
		c.write(ws.OpBinary, frame)
	}
	g.await(n * per)
	return n * per
}

// track makes every member present: each sees each.
func (g *benchGroup) track() int64 {
	for i, c := range g.conns {
		c.write(ws.OpText, fmt.Appendf(nil, `["1","2",%q,"presence",{"type":"presence","event":"track","payload":{"n":"%05d"}}]`, c.topic, i))
	}
	// A reply, and a diff of every member, to each; presence_state is the first.
	n := int64(len(g.conns)) * int64(len(g.conns)+2)
	g.await(n)
	return n
}

// joins joins n times, each socket one after the other.
func (g *benchGroup) joins(n int64) int64 {
	var next atomic.Int64
	var all sync.WaitGroup
	for _, c := range g.conns {
		all.Go(func() {
			for i := next.Add(1); i <= n; i = next.Add(1) {
				c.topic = fmt.Sprintf("realtime:%d", i)
				_ = c.join(g.o.Join)
				c.write(ws.OpText, fmt.Appendf(nil, `["1","2",%q,"phx_leave",{}]`, c.topic))
				for range 2 { // reply and phx_close
					if h, err := ws.ReadHeader(c.nc); err == nil {
						_, _ = io.CopyN(io.Discard, c.nc, h.Length)
					}
				}
			}
		})
	}
	all.Wait()
	return n
}

// read counts frames; one in eight tells how long it took.
func (c *benchConn) read(g *benchGroup) {
	buf := make([]byte, 8192)
	have, seen := 0, rand.IntN(8)
	for {
		n, err := c.nc.Read(buf[have:])
		if err != nil {
			return
		}
		now := time.Now().UnixNano()
		have += n
		at, frames := 0, int64(0)
		for have-at >= 2 {
			size, head := int(buf[at+1]), 2
			if size == 126 {
				if have-at < 4 {
					break
				}
				size, head = int(binary.BigEndian.Uint16(buf[at+2:])), 4
			}
			if have-at < head+size {
				break
			}
			if seen++; g.o.Do == "send" && seen%8 == 0 {
				sent := int64(binary.BigEndian.Uint64(buf[at+head+size-benchPayload:]))
				c.micros = append(c.micros, uint32((now-sent)/1000))
			}
			at += head + size
			frames++
		}
		have = copy(buf, buf[at:have])
		if frames > 0 && g.delivered.Add(frames) >= g.wanted.Load() {
			select {
			case g.wake <- struct{}{}:
			default:
			}
		}
	}
}
