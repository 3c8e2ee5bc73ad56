//go:build unix

package realtime_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/cluster"
	"github.com/sluice-dev/sluice/realtime"
)

// benchServer is a server under measurement, on loopback TCP.
type benchServer struct {
	addr string
	rt   *realtime.Server // nil: the raw one
}

// benchSluice serves Realtime without limits, as `sluice` does, behind net/http.
func benchSluice(b *testing.B) *benchServer {
	s := &benchServer{}
	rt, err := realtime.New(realtime.Config{
		Logger: slog.New(slog.DiscardHandler), Tokens: fakeTokens{},
		Bus:      cluster.NewLocal(cluster.Handlers{Broadcast: func(m *sluice.Broadcast) { s.rt.Deliver(m) }}),
		MaxUsers: realtime.Unlimited, MaxJoinsPerSecond: realtime.Unlimited, MaxEventsPerSecond: realtime.Unlimited,
		MaxPresencePerSecond: realtime.Unlimited,
	})
	if err != nil {
		b.Fatal(err)
	}
	s.rt = rt
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = rt.Run(ctx) })
	b.Cleanup(func() { cancel(); running.Wait() })
	s.listen(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rt.ServeHTTP(w, r.WithContext(sluice.WithIdentity(r.Context(), anon)))
	}))
	return s
}

func (s *benchServer) listen(b *testing.B, h http.Handler) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s.addr = l.Addr().String()
	srv := &http.Server{Handler: h}
	go func() { _ = srv.Serve(l) }() // ends with Close
	b.Cleanup(func() { srv.Close() })
}

// benchRaw is the least that a server in plain Go can do: a goroutine for each
// connection, no protocol, a frame prepared once and written to each receiver.
func benchRaw(b *testing.B) *benchServer {
	s := &benchServer{}
	var mu sync.RWMutex
	topics := map[string][]net.Conn{}
	s.listen(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		topic := r.URL.Query().Get("topic")
		nc, _, _, err := ws.UpgradeHTTP(r, w)
		if err != nil {
			return
		}
		defer nc.Close()
		mu.Lock()
		topics[topic] = append(topics[topic], nc)
		mu.Unlock()
		buf := make([]byte, 512)
		for {
			h, err := ws.ReadHeader(nc)
			if err != nil || h.Length > int64(len(buf)) {
				return
			}
			if _, err := io.ReadFull(nc, buf[:h.Length]); err != nil {
				return
			}
			frame := ws.MustCompileFrame(ws.NewBinaryFrame(buf[:h.Length]))
			mu.RLock()
			for _, other := range topics[topic] {
				_, _ = other.Write(frame)
			}
			mu.RUnlock()
		}
	}))
	return s
}

// benchClients is a client process that has connected.
type benchClients struct {
	b   *testing.B
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func (s *benchServer) clients(b *testing.B, o benchOrder) *benchClients {
	b.Helper()
	o.Addr, o.Raw = s.addr, s.rt == nil
	order, err := json.Marshal(o)
	if err != nil {
		b.Fatal(err)
	}
	c := &benchClients{b: b, cmd: exec.Command(os.Args[0])}
	c.cmd.Env = append(os.Environ(), benchEnv+"="+string(order))
	c.cmd.Stderr = os.Stderr
	in, err1 := c.cmd.StdinPipe()
	out, err2 := c.cmd.StdoutPipe()
	if err1 != nil || err2 != nil {
		b.Fatal(err1, err2)
	}
	if err := c.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	c.in, c.out = in, bufio.NewReader(out)
	if line, err := c.out.ReadString('\n'); line != "ready\n" {
		b.Fatalf("clients did not connect: %q %v", line, err)
	}
	return c
}

// run gives the order and returns the result and the CPU time that this
// process, the server, has used meanwhile.
func (c *benchClients) run(n int) (r benchResult, cpu time.Duration) {
	c.b.Helper()
	before := cpuTime()
	fmt.Fprintf(c.in, "go %d\n", n)
	line, err := c.out.ReadBytes('\n')
	if err != nil || json.Unmarshal(line, &r) != nil {
		c.b.Fatalf("clients: %q %v", line, err)
	}
	return r, cpuTime() - before
}

func (c *benchClients) end() {
	c.in.Close()
	_ = c.cmd.Wait()
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // cannot fail for this process
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func bothServers(b *testing.B, fn func(b *testing.B, s *benchServer)) {
	b.Run("server=raw", func(b *testing.B) { fn(b, benchRaw(b)) })
	b.Run("server=sluice", func(b *testing.B) { fn(b, benchSluice(b)) })
}

const selfJoin = `{"config":{"broadcast":{"self":true}}}`

// BenchmarkFanout sends messages of 128 bytes to one channel of many receivers,
// and to many channels of ten. An operation is one message.
func BenchmarkFanout(b *testing.B) {
	for _, shape := range []struct{ conns, perTopic int }{{100, 100}, {1000, 1000}, {5000, 5000}, {1000, 10}} {
		for _, window := range []int{1, 32} {
			b.Run(fmt.Sprintf("conns=%d/channel=%d/window=%d", shape.conns, shape.perTopic, window), func(b *testing.B) {
				bothServers(b, func(b *testing.B, s *benchServer) {
					c := s.clients(b, benchOrder{Conns: shape.conns, PerTopic: shape.perTopic, Join: selfJoin, Do: "send", Window: window})
					defer c.end()
					b.ResetTimer()
					r, cpu := c.run(b.N)
					b.StopTimer()
					b.ReportMetric(float64(cpu.Microseconds())/float64(r.Delivered), "cpu-µs/delivery")
					b.ReportMetric(float64(r.Delivered)/cpu.Seconds(), "deliveries/cpu-s")
					b.ReportMetric(float64(r.Delivered)/r.Seconds, "deliveries/s")
					b.ReportMetric(r.Micros[0]/1000, "p50-ms")
					b.ReportMetric(r.Micros[1]/1000, "p99-ms")
				})
			})
		}
	}
}

// BenchmarkIdle measures what one idle joined connection holds of heap and
// stacks. An operation is nothing; run it with -benchtime 1x.
func BenchmarkIdle(b *testing.B) {
	for _, conns := range []int{1000, 10000} {
		b.Run(fmt.Sprintf("conns=%d", conns), func(b *testing.B) {
			bothServers(b, func(b *testing.B, s *benchServer) {
				heap, stack := memory()
				c := s.clients(b, benchOrder{Conns: conns, PerTopic: 10, Join: emptyJoin})
				defer c.end()
				heapNow, stackNow := memory()
				for b.Loop() {
				}
				b.ReportMetric(float64(heapNow-heap)/float64(conns), "heap-B/conn")
				b.ReportMetric(float64(stackNow-stack)/float64(conns), "stack-B/conn")
				b.ReportMetric(float64(heapNow-heap+stackNow-stack)/float64(conns), "B/conn")
			})
		})
	}
}

// BenchmarkRejoin joins and leaves public topics from 100 sockets, over TCP and
// with a token that was verified before.
func BenchmarkRejoin(b *testing.B) {
	s := benchSluice(b)
	c := s.clients(b, benchOrder{Conns: 100, PerTopic: 100, Do: "join", Join: emptyJoin})
	defer c.end()
	b.ResetTimer()
	r, cpu := c.run(b.N)
	b.StopTimer()
	b.ReportMetric(float64(r.Delivered)/r.Seconds, "joins/s")
	b.ReportMetric(float64(cpu.Microseconds())/float64(r.Delivered), "cpu-µs/join")
}

// BenchmarkConnect opens and joins 2,000 sockets an operation.
func BenchmarkConnect(b *testing.B) {
	const conns = 2000
	s := benchSluice(b)
	for b.Loop() {
		s.clients(b, benchOrder{Conns: conns, PerTopic: 10, Join: emptyJoin}).end()
	}
	b.ReportMetric(float64(conns*b.N)/b.Elapsed().Seconds(), "connects/s")
}

// BenchmarkPresenceStorm makes 1,000 members of one topic track at once. What is
// sent must not exceed what the protocol forces: a diff of each to each, and a
// reply.
func BenchmarkPresenceStorm(b *testing.B) {
	const members = 1000
	for b.Loop() {
		s := benchSluice(b)
		c := s.clients(b, benchOrder{Conns: members, PerTopic: members, Join: `{"config":{"presence":{"enabled":true,"key":"k"}}}`, Do: "track"})
		before := s.rt.Metrics().BytesOut.Load()
		r, cpu := c.run(1)
		sent := s.rt.Metrics().BytesOut.Load() - before
		c.end()
		const diff = `[null,null,"realtime:00000","presence_diff",{"joins":{"k":{"metas":[{"phx_ref":"0123456789abcdef","n":"00000"}]}},"leaves":{}}]`
		const reply = `["1","2","realtime:00000","phx_reply",{"status":"ok","response":{}}]`
		forced := members * (members*(len(diff)+4) + len(reply) + 2)
		if float64(sent) > 1.01*float64(forced) {
			b.Errorf("%d bytes were sent, the protocol forces %d", sent, forced)
		}
		b.ReportMetric(float64(sent)/float64(forced), "sent/forced")
		b.ReportMetric(r.Seconds, "s/storm")
		b.ReportMetric(cpu.Seconds(), "cpu-s/storm")
	}
}
