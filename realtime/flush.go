package realtime

import "sync"

// flusher writes to the sockets for which something waits, with a few goroutines
// for all of them, which exist only while there is work. Measured against a
// goroutine for each socket: the same CPU time, and several times the deliveries
// when the machine is busy, because the scheduler has a handful of goroutines in
// system calls to look after and not thousands. Its writes do not block: what a
// socket does not take at once is left to a goroutine of its own.
type flusher struct {
	max int // goroutines; fixed after New

	mu      sync.Mutex
	waiting []*conn // each at most once: conn.busy
	head    int
	running int
	all     sync.WaitGroup
}

// add queues c. It never blocks.
func (f *flusher) add(c *conn) {
	f.mu.Lock()
	f.waiting = append(f.waiting, c)
	start := f.running < f.max
	if start {
		f.running++
		f.all.Add(1)
	}
	f.mu.Unlock()
	if start {
		go f.run() // ends when nothing waits; Server.stop waits
	}
}

func (f *flusher) run() {
	defer f.all.Done()
	w := rawWrites.Get().(*rawWrite)
	defer rawWrites.Put(w)
	var chunk [16]*conn
	for {
		n := f.take(chunk[:])
		if n == 0 {
			return
		}
		for _, c := range chunk[:n] {
			c.flush(w)
		}
		clear(chunk[:n])
	}
}

// take moves what waits longest into dst. With nothing left the goroutine counts
// as ended.
func (f *flusher) take(dst []*conn) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := copy(dst, f.waiting[f.head:])
	clear(f.waiting[f.head : f.head+n])
	f.head += n
	switch {
	case f.head == len(f.waiting):
		f.waiting, f.head = f.waiting[:0], 0
	case f.head >= 1024 && f.head*2 >= len(f.waiting): // never empty under load: make room at the end
		rest := copy(f.waiting, f.waiting[f.head:])
		clear(f.waiting[rest:])
		f.waiting, f.head = f.waiting[:rest], 0
	}
	if n == 0 {
		f.running--
	}
	return n
}

// rawWrite is one write that does not block. It is kept between writes, so that
// none of them allocates.
type rawWrite struct {
	p       []byte
	n       int
	err     error
	attempt func(fd uintptr) bool // calls write with the descriptor
}

var rawWrites = sync.Pool{New: func() any {
	w := &rawWrite{}
	w.attempt = func(fd uintptr) bool {
		w.n, w.err = writeFD(fd, w.p)
		return true // whatever came of it
	}
	return w
}}

// write writes p to c and returns how much of it went.
func (w *rawWrite) write(c *conn, p []byte) (int, error) {
	w.p, w.n, w.err = p, 0, nil
	err := c.raw.Write(w.attempt)
	w.p = nil
	if err == nil {
		err = w.err
	}
	return w.n, err
}

// flush writes what waits for c, as far as the socket takes it at once.
func (c *conn) flush(w *rawWrite) {
	for {
		b := c.nextBatch()
		if b == nil {
			return
		}
		p := b.join()
		if p == nil { // too much to be copied
			go c.writeLoop(b) // ends when the queue is empty; finish waits
			return
		}
		n, err := w.write(c, p)
		if err == nil && n < len(p) {
			b.rest = p[n:]
			go c.writeLoop(b) // as above
			return
		}
		c.wrote(b, err)
	}
}
