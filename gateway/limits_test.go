package gateway_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/gateway"
	"github.com/sluice-dev/sluice/token"
)

func TestURLTooLong(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	base := "/rest/v1/t?id=in."
	if rec := w.do("GET", base+strings.Repeat("1", gateway.MaxURLBytes-len(base))); rec.Code != http.StatusOK {
		t.Errorf("the longest URL: %d", rec.Code)
	}
	wantRefusal(t, w.do("GET", base+strings.Repeat("1", gateway.MaxURLBytes-len(base)+1)), http.StatusRequestURITooLong, sluice.CodeURLTooLong)
}

// A body that is announced too long is refused; one that turns out too long
// ends with an error, and the connection with it.
func TestBodyTooLarge(t *testing.T) {
	t.Parallel()
	const limit = 1000
	var read error
	w := newWorld(t, func(c *gateway.Config) {
		c.MaxBody = limit
		c.REST = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n, err := io.Copy(io.Discard, r.Body)
			read = err
			_, _ = fmt.Fprint(w, n)
		})
	})
	srv := httptest.NewServer(w)
	defer srv.Close()
	post := func(body io.Reader) *http.Response {
		res, err := srv.Client().Post(srv.URL+"/rest/v1/t", "application/json", body)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { res.Body.Close() })
		return res
	}
	if res := post(strings.NewReader(strings.Repeat("x", limit))); res.StatusCode != http.StatusOK || read != nil {
		t.Errorf("the longest body: %d, %v", res.StatusCode, read)
	}
	if res := post(strings.NewReader(strings.Repeat("x", limit+1))); res.StatusCode != http.StatusRequestEntityTooLarge || res.Header.Get("X-Sluice-Code") != "BodyTooLarge" {
		t.Errorf("one byte more: %d %v", res.StatusCode, res.Header)
	}
	res := post(io.MultiReader(strings.NewReader(strings.Repeat("x", limit+1)))) // chunked: no length is announced
	var tooLarge *http.MaxBytesError
	if !errors.As(read, &tooLarge) || !res.Close {
		t.Errorf("chunked: %v, connection closes: %v", read, res.Close)
	}
}

// listener hands out one end of pipes.
type listener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newListener() *listener {
	return &listener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *listener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *listener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

func (l *listener) dial() net.Conn {
	client, server := net.Pipe()
	l.conns <- server
	return client
}

// run calls fn with a gateway that runs on a listener, in a bubble of fake time,
// and stops it.
func run(t *testing.T, change func(*gateway.Config), fn func(t *testing.T, l *listener, stop func() error)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := newListener()
		w := newWorld(t, change, func(c *gateway.Config) { c.Listeners = []net.Listener{l} })
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		stop := sync.OnceValue(func() error { cancel(); return <-ended })
		fn(t, l, stop)
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// A body may take as long as it likes while it moves; one that stands still for
// a minute fails, and so does the drain of a body that nobody reads.
func TestSilentBody(t *testing.T) {
	t.Parallel()
	var got []byte
	var readErr error
	change := func(c *gateway.Config) {
		c.REST = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/unread" {
				return
			}
			got, readErr = io.ReadAll(r.Body)
			select { // a long statement: the deadline of the body must not end it
			case <-time.After(10 * time.Minute):
			case <-r.Context().Done():
				readErr = errors.Join(readErr, r.Context().Err())
			}
			_, _ = w.Write(got)
		})
	}
	head := func(path string, n int) string {
		return fmt.Sprintf("POST /rest/v1%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", path, n)
	}
	run(t, change, func(t *testing.T, l *listener, _ func() error) {
		c := l.dial()
		defer c.Close()
		_, _ = io.WriteString(c, head("/slow", 10))
		for range 10 {
			time.Sleep(gateway.StallTimeout - time.Second) // fake time
			_, _ = io.WriteString(c, "x")
		}
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || res.StatusCode != http.StatusOK || len(got) != 10 || readErr != nil {
			t.Fatalf("slow body: %v, %v; read %q, %v", res, err, got, readErr)
		}
	})
	run(t, change, func(t *testing.T, l *listener, _ func() error) {
		c := l.dial()
		defer c.Close()
		_, _ = io.WriteString(c, head("/silent", 10)+"xxx")
		start := time.Now()
		_, _ = http.ReadResponse(bufio.NewReader(c), nil)
		var timeout net.Error
		if !errors.As(readErr, &timeout) || !timeout.Timeout() || len(got) != 3 {
			t.Errorf("silent body: read %q, %v after %s", got, readErr, time.Since(start))
		}
	})
	run(t, change, func(t *testing.T, l *listener, _ func() error) {
		c := l.dial()
		defer c.Close()
		_, _ = io.WriteString(c, head("/unread", 10)+"xxx")
		start := time.Now()
		_, _ = io.Copy(io.Discard, c) // ends when the server closes
		if d := time.Since(start); d > gateway.StallTimeout+time.Second {
			t.Errorf("a body that nobody reads kept the connection for %s", d)
		}
	})
}

// An answer may be taken as slowly as it likes while it moves; of who takes
// nothing for half a minute nothing is kept. A service may have limits of its own,
// and the next request on the connection knows none of an earlier one.
func TestSilentReader(t *testing.T) {
	t.Parallel()
	const size = 8 * gateway.PartSize
	var mu sync.Mutex // guards what the service saw last
	var failed error
	var took time.Duration
	saw := func(err error, since time.Time) {
		mu.Lock()
		defer mu.Unlock()
		failed, took = err, time.Since(since)
	}
	last := func() (time.Duration, error) {
		mu.Lock()
		defer mu.Unlock()
		return took, failed
	}
	change := func(c *gateway.Config) {
		c.REST = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/small" {
				_, _ = io.WriteString(w, "small")
				return
			}
			if r.URL.Path == "/patient" {
				_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(5 * time.Minute))
			}
			if r.URL.Path == "/paused" { // written, waited, sent: at each the time begins anew
				_, _ = io.WriteString(w, "first")
				time.Sleep(2 * gateway.TakeTimeout)
				saw(http.NewResponseController(w).Flush(), time.Now())
				time.Sleep(2 * gateway.TakeTimeout)
				_, _ = io.WriteString(w, "last")
				time.Sleep(2 * gateway.TakeTimeout)
				return
			}
			start := time.Now()
			_, err := w.Write(make([]byte, size))
			saw(err, start)
		})
	}
	get := func(l *listener, path string) net.Conn {
		c := l.dial()
		_, _ = fmt.Fprintf(c, "GET /rest/v1%s HTTP/1.1\r\nHost: x\r\n\r\n", path)
		return c
	}
	for path, limit := range map[string]time.Duration{"/silent": gateway.TakeTimeout, "/patient": 5 * time.Minute} {
		run(t, change, func(t *testing.T, l *listener, _ func() error) {
			c := get(l, path)
			defer c.Close()
			time.Sleep(10 * time.Minute)
			var timeout net.Error
			if took, failed := last(); !errors.As(failed, &timeout) || !timeout.Timeout() || took != limit {
				t.Errorf("%s: %v after %s, want a timeout after %s", path, failed, took, limit)
			}
		})
	}
	run(t, change, func(t *testing.T, l *listener, _ func() error) {
		c := get(l, "/small")
		defer c.Close()
		time.Sleep(gateway.TakeTimeout + time.Second)
		if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
			t.Errorf("half a minute late there is still %q, %v", rest, err)
		}
	})
	run(t, change, func(t *testing.T, l *listener, _ func() error) {
		c := get(l, "/paused")
		defer c.Close()
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		if _, failed := last(); err != nil || string(body) != "firstlast" || failed != nil {
			t.Errorf("an answer with pauses: %q, %v, %v", body, err, failed)
		}
	})
	run(t, change, func(t *testing.T, l *listener, _ func() error) {
		c := get(l, "/slow")
		defer c.Close()
		in := bufio.NewReader(c)
		for _, path := range []string{"", "/patient"} { // the second on the connection of the first
			if path != "" {
				time.Sleep(gateway.TakeTimeout + time.Second)
				_, _ = fmt.Fprintf(c, "GET /rest/v1%s HTTP/1.1\r\nHost: x\r\n\r\n", path)
			}
			res, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			n := int64(0)
			for err == nil && n < size {
				time.Sleep(gateway.TakeTimeout - time.Second)
				var taken int64
				taken, err = io.CopyN(io.Discard, res.Body, gateway.PartSize)
				n += taken
			}
			_, _ = io.Copy(io.Discard, res.Body)
			if _, failed := last(); err != nil || failed != nil {
				t.Errorf("slow client: %d bytes of %d, %v, %v", n, size, err, failed)
			}
		}
	})
}

// A bug in one request is answered or, once an answer has begun, cut off; other
// requests go on.
func TestPanic(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *gateway.Config) {
		c.REST = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			switch r.URL.Path {
			case "/late":
				_, _ = io.WriteString(w, "[")
				_ = http.NewResponseController(w).Flush()
				panic("late bug")
			case "/abort":
				panic(http.ErrAbortHandler)
			}
			w.Header().Set("Content-Length", "1000")
			panic("early bug")
		})
	})
	body := wantRefusal(t, w.do("GET", "/rest/v1/early"), http.StatusInternalServerError, sluice.CodeInternal)
	if strings.Contains(body.Message, "bug") {
		t.Errorf("the cause is public: %q", body.Message)
	}
	srv := httptest.NewServer(w)
	defer srv.Close()
	srv.Config.ErrorLog = nil
	for path, answered := range map[string]bool{"/early": true, "/late": false, "/abort": false} {
		res, err := srv.Client().Get(srv.URL + "/rest/v1" + path)
		if err == nil {
			_, err = io.ReadAll(res.Body)
			res.Body.Close()
		}
		if (err == nil) != answered {
			t.Errorf("%s: %v", path, err)
		}
	}
	if rec := w.do("GET", "/auth/v1/health"); rec.Code != http.StatusOK {
		t.Errorf("another request: %d", rec.Code)
	}
	if log := w.log.String(); strings.Count(log, `"panic":"`) != 3 || !strings.Contains(log, "limits_test.go") {
		t.Errorf("log %s", log)
	}
}

// Run answers what is under way when it is told to stop, and does not wait for
// sockets.
func TestRun(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	var socket net.Conn
	change := func(c *gateway.Config) {
		c.REST = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(entered)
			<-release
			_, _ = io.WriteString(w, "done")
		})
		c.Realtime = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			socket, _, _ = http.NewResponseController(w).Hijack()
			_, _ = io.WriteString(socket, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
		})
	}
	run(t, func(c *gateway.Config) {
		entered, release = make(chan struct{}), make(chan struct{}) // of this bubble
		change(c)
	}, func(t *testing.T, l *listener, stop func() error) {
		ws := l.dial()
		defer ws.Close()
		_, _ = io.WriteString(ws, "GET /realtime/v1/websocket?apikey="+token.DevPublishableKey+" HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		wsr := bufio.NewReader(ws)
		if res, err := http.ReadResponse(wsr, nil); err != nil || res.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("upgrade: %v %v", res, err)
		}
		c := l.dial()
		defer c.Close()
		_, _ = io.WriteString(c, "GET /rest/v1/t HTTP/1.1\r\nHost: x\r\n\r\n")
		<-entered
		stopped := make(chan error)
		go func() { stopped <- stop() }()
		synctest.Wait()
		close(release)
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Errorf("request under way: %v %v", res, err)
		}
		if err := <-stopped; err != nil {
			t.Errorf("Run: %v", err)
		}
		// The socket outlives Run, and no deadline of the server cuts it.
		time.Sleep(time.Hour)
		go func() { _, _ = io.WriteString(socket, "still here\n") }()
		if line, err := wsr.ReadString('\n'); err != nil || line != "still here\n" {
			t.Errorf("socket: %q %v", line, err)
		}
		socket.Close()
	})
	// A request that does not end is given up.
	run(t, func(c *gateway.Config) {
		entered, release = make(chan struct{}), make(chan struct{})
		change(c)
		c.ShutdownTimeout = 3 * time.Second
	}, func(t *testing.T, l *listener, stop func() error) {
		c := l.dial()
		defer c.Close()
		_, _ = io.WriteString(c, "GET /rest/v1/t HTTP/1.1\r\nHost: x\r\n\r\n")
		<-entered
		start := time.Now()
		if err := stop(); err != nil || time.Since(start) > 4*time.Second {
			t.Errorf("Run: %v after %s", err, time.Since(start))
		}
		close(release)
		_, _ = io.Copy(io.Discard, c)
	})
}

func TestRunFails(t *testing.T) {
	t.Parallel()
	if err := newWorld(t).Run(t.Context()); err == nil {
		t.Error("runs without a listener")
	}
	good, bad := newListener(), newListener()
	bad.Close()
	w := newWorld(t, func(c *gateway.Config) { c.Listeners = []net.Listener{good, bad} })
	if err := w.Run(t.Context()); err == nil || !errors.Is(err, net.ErrClosed) {
		t.Errorf("a listener that fails: %v", err)
	}
	select {
	case <-good.closed:
	default:
		t.Error("the other listener stays open")
	}
}
