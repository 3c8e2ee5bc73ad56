package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5"
)

// soakSize is how much one run does; `make soak-changes` runs the large one.
type soakSize struct{ rows, cuts, kills, restarts int }

func size() soakSize {
	if os.Getenv("SLUICE_SOAK_CHANGES") == "" {
		return soakSize{rows: 4000, cuts: 8, kills: 1, restarts: 1}
	}
	s := soakSize{rows: 1_000_000, cuts: 200, kills: 10, restarts: 5}
	if n, err := strconv.Atoi(os.Getenv("SLUICE_SOAK_CHANGES")); err == nil && n > 1 {
		s = soakSize{rows: n, cuts: max(8, n/5000), kills: max(1, n/100_000), restarts: max(1, n/200_000)}
	}
	return s
}

const (
	soakTables  = 4
	soakWriters = 8
	soakClients = 6
	perRow      = 20 // rows of a transaction, at most
)

// soakSchema: table 1 shows a row to one of the clients, the others to everybody.
const soakSchema = `create table public.soak_%[1]d (writer int, seq int, reader int, primary key (writer, seq));
grant select on public.soak_%[1]d to authenticated;
alter table public.soak_%[1]d enable row level security;
create policy see on public.soak_%[1]d for select to authenticated using (%[2]s);
alter publication supabase_realtime add table public.soak_%[1]d`

// TestSoakChanges writes rows while sockets are cut, Sluice is killed and PostgreSQL
// is restarted. Every client has every row that it may see, each writer's in order in
// each table, or was told of a gap; on one socket no row comes twice.
func TestSoakChanges(t *testing.T) {
	n := size()
	s := newProject(t)
	s.start(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for i := range soakTables {
		using := "true"
		if i == 1 {
			using = "reader = (auth.jwt() ->> 'reader')::int"
		}
		for _, sql := range splitSQL(fmt.Sprintf(soakSchema, i, using)) {
			if _, err := s.query(ctx, sql); err != nil {
				t.Fatal(err)
			}
		}
	}
	p := newCutter(t, s.vars["API_URL"])
	var clients []*soakClient
	var running sync.WaitGroup
	for i := range soakClients {
		c := newSoakClient(t, i, p.addr(), s.vars["PUBLISHABLE_KEY"], s.vars["JWT_SECRET"])
		clients = append(clients, c)
		running.Go(func() { c.run(ctx) })
	}
	defer running.Wait()
	defer cancel()
	for _, c := range clients {
		c.awaitJoin(t)
	}

	var written atomic.Int64
	var writers sync.WaitGroup
	for w := range soakWriters {
		writers.Go(func() {
			if err := write(ctx, s.vars["DB_URL"], w, n.rows/soakWriters, &written); err != nil && ctx.Err() == nil {
				t.Errorf("writer %d: %v", w, err)
				cancel()
			}
		})
	}
	disturb(t, s, p, n, &written)
	writers.Wait()

	want := soakRows(t, s)
	for _, c := range clients {
		c.complete(t, want)
	}
	var repeats, gaps, resumes int
	for _, c := range clients {
		c.mu.Lock()
		repeats, gaps, resumes = repeats+c.repeats, gaps+c.gaps, resumes+c.resumes
		c.mu.Unlock()
	}
	t.Logf("%d rows to %d clients; %d cuts, %d kills, %d restarts: %d resumes, %d gaps, %d repeats", written.Load(), soakClients, n.cuts, n.kills, n.restarts, resumes, gaps, repeats)
	if t.Failed() {
		s.keepLog(t)
	}
	if resumes == 0 {
		t.Error("nobody was resumed")
	}
	if os.Getenv("SLUICE_SOAK_CHANGES") == "" && gaps > 0 {
		t.Errorf("%d gaps in a run that fits into memory", gaps)
	}
}

func splitSQL(text string) (out []string) {
	start := 0
	for i := range len(text) {
		if text[i] == ';' {
			out = append(out, text[start:i])
			start = i + 1
		}
	}
	return append(out, text[start:])
}

// disturb does its worst, each time when so many rows are written.
func disturb(t *testing.T, s *stack, p *cutter, n soakSize, written *atomic.Int64) {
	t.Helper()
	type event struct {
		at int64
		do func() error
	}
	var events []event
	spread := func(count int, do func() error) {
		for i := range count {
			events = append(events, event{int64(n.rows) * int64(2*i+1) / int64(2*count+1), do})
		}
	}
	spread(n.cuts, func() error { p.cut(1 + rand.IntN(soakClients)); return nil })
	note := func(what string, do func() error) func() error {
		return func() error {
			t.Logf("%s %s", time.Now().Format("15:04:05.000"), what)
			return do()
		}
	}
	spread(n.kills, note("kill", func() error {
		if err := s.kill(); err != nil {
			return err
		}
		return s.up()
	}))
	spread(n.restarts, note("restart PostgreSQL", func() error {
		if err := s.stopPostgres(); err != nil {
			return err
		}
		return s.startPostgres(t.Context())
	}))
	done := make([]bool, len(events))
	for left := len(events); left > 0 && !t.Failed(); {
		for i, e := range events {
			if done[i] || written.Load() < e.at {
				continue
			}
			done[i] = true
			left--
			if err := e.do(); err != nil {
				t.Errorf("disturb: %v", err)
			}
		}
		time.Sleep(time.Millisecond) // how long does not matter: rows decide
	}
}

// write inserts count rows as writer w, transaction by transaction. A transaction
// whose end is not known is looked for before it is tried again.
func write(ctx context.Context, dbURL string, w, count int, written *atomic.Int64) error {
	var conn *pgx.Conn
	defer func() {
		if conn != nil {
			conn.Close(context.Background())
		}
	}()
	random := rand.New(rand.NewPCG(uint64(w), 1))
	failures := 0
	for seq := 0; seq < count; {
		n := min(1+random.IntN(perRow), count-seq)
		table := random.IntN(2 * soakTables)
		if table >= soakTables { // the table under a costly policy gets fewer rows
			table = []int{0, 2, 3, 0}[table-soakTables]
		}
		for {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			err := insertSoak(ctx, &conn, dbURL, table, w, seq, n)
			if err == nil {
				failures = 0
				break
			}
			if failures++; failures > 3000 {
				return err
			}
			time.Sleep(20 * time.Millisecond) // the database is away
		}
		seq += n
		written.Add(int64(n))
	}
	return nil
}

func insertSoak(ctx context.Context, conn **pgx.Conn, dbURL string, table, w, seq, n int) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if *conn == nil {
		c, err := pgx.Connect(ctx, dbURL)
		if err != nil {
			return err
		}
		*conn = c
	}
	defer func() {
		if err != nil {
			(*conn).Close(context.Background())
			*conn = nil
		}
	}()
	_, err = (*conn).Exec(ctx, fmt.Sprintf(
		"insert into public.soak_%d select $1, s, s %% %d from generate_series($2::int, $3::int) s on conflict do nothing", table, soakClients), w, seq, seq+n-1)
	return err
}

// soakRows returns what is in the tables: by table and writer the rows, with their
// readers.
func soakRows(t *testing.T, s *stack) map[[2]int][]int {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.vars["DB_URL"])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	out := map[[2]int][]int{}
	for table := range soakTables {
		rows, err := conn.Query(t.Context(), fmt.Sprintf("select writer, seq from public.soak_%d order by 1, 2", table))
		if err != nil {
			t.Fatal(err)
		}
		var w, seq int
		if _, err := pgx.ForEachRow(rows, []any{&w, &seq}, func() error {
			out[[2]int{table, w}] = append(out[[2]int{table, w}], seq)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// soakClient is a client of the protocol that comes back as realtime-js does: its
// numbers go on, its join stays the same.
type soakClient struct {
	t       *testing.T
	number  int
	url     string
	token   string
	ref     int
	joined  chan struct{} // closed at the first join
	onceful sync.Once

	mu   sync.Mutex
	seen map[[2]int]map[int]bool // by table and writer
	last map[[2]int]int          // the last row that was new
	here map[[2]int]int          // the last row of this socket
	// A gap excuses what is missing between the last row before it and the first
	// behind it. Those rows may come after all: on a later socket, which begins
	// again in front of the gap when nothing behind it was confirmed, or noted
	// before Sluice was killed.
	open    map[[2]int]int      // where a gap began that no row has ended yet
	excused map[[2]int][][2]int // from, to
	history []string            // what happened, for a failure
	rows    int
	repeats int
	resumes int
	gaps    int
}

func newSoakClient(t *testing.T, number int, addr, key, secret string) *soakClient {
	t.Helper()
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"role": "authenticated", "sub": fmt.Sprintf("00000000-0000-4000-8000-%012d", number), "session_id": fmt.Sprint("session", number),
		"reader": number, "exp": time.Now().Add(24 * time.Hour).Unix(), "aud": "authenticated",
	}).SignedString([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	return &soakClient{
		t: t, number: number, token: token, url: "ws://" + addr + "/realtime/v1/websocket?vsn=2.0.0&apikey=" + url.QueryEscape(key),
		joined: make(chan struct{}), seen: map[[2]int]map[int]bool{}, last: map[[2]int]int{},
		open: map[[2]int]int{}, excused: map[[2]int][][2]int{},
	}
}

func (c *soakClient) awaitJoin(t *testing.T) {
	t.Helper()
	select {
	case <-c.joined:
	case <-time.After(30 * time.Second):
		t.Fatalf("client %d has not joined", c.number)
	}
}

// run connects again and again until ctx ends.
func (c *soakClient) run(ctx context.Context) {
	for ctx.Err() == nil {
		c.connect(ctx)
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// lockedConn lets heartbeats and pongs share a socket.
type lockedConn struct {
	net.Conn
	mu sync.Mutex
}

func (l *lockedConn) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Conn.Write(p)
}

// connect serves one socket to its end.
func (c *soakClient) connect(ctx context.Context) {
	dialing, cancel := context.WithTimeout(ctx, 10*time.Second)
	nc, br, _, err := ws.Dial(dialing, c.url)
	cancel()
	if err != nil {
		return
	}
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { nc.Close() })()
	if br != nil {
		ws.PutReader(br)
	}
	l := &lockedConn{Conn: nc}
	c.mu.Lock()
	c.here = map[[2]int]int{}
	c.note("connected")
	c.mu.Unlock()
	bindings := ""
	for i := range soakTables {
		if i > 0 {
			bindings += ","
		}
		bindings += fmt.Sprintf(`{"event":"INSERT","schema":"public","table":"soak_%d"}`, i)
	}
	join := fmt.Sprintf(`{"config":{"broadcast":{"ack":false,"self":false},"presence":{"key":""},"postgres_changes":[%s],"private":false},"access_token":%q}`, bindings, c.token)
	if c.send(l, "realtime:soak", "phx_join", join) != nil {
		return
	}
	beat := time.NewTicker(15 * time.Second)
	defer beat.Stop()
	socket, stop := context.WithCancel(ctx)
	beats := make(chan struct{})
	go func() { // ends with the socket; waited for below
		defer close(beats)
		for {
			select {
			case <-beat.C:
				if c.send(l, "phoenix", "heartbeat", "{}") != nil {
					return
				}
			case <-socket.Done():
				return
			}
		}
	}()
	defer func() { stop(); nc.Close(); <-beats }()
	for {
		text, err := wsutil.ReadServerText(l)
		if err != nil {
			return
		}
		var m struct {
			event   string
			payload json.RawMessage
		}
		var skip any
		if err := json.Unmarshal(text, &[]any{&skip, &skip, &skip, &m.event, &m.payload}); err != nil {
			c.t.Errorf("%v: %s", err, text)
			return
		}
		if !c.take(m.event, m.payload) {
			return
		}
	}
}

// send pushes a message with the next number.
func (c *soakClient) send(l *lockedConn, topic, event, payload string) error {
	c.mu.Lock()
	c.ref++
	ref := c.ref
	c.mu.Unlock()
	return wsutil.WriteClientText(l, fmt.Appendf(nil, `["%d","%d",%q,%q,%s]`, ref, ref, topic, event, payload))
}

// take acts on one message; false ends the socket.
func (c *soakClient) take(event string, payload json.RawMessage) bool {
	var p struct {
		Status, Message string
		Data            struct {
			Table  string
			Record struct{ Writer, Seq, Reader int }
		}
	}
	if err := json.Unmarshal(payload, &p); err != nil {
		c.t.Errorf("%v: %s", err, payload)
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch event {
	case "phx_reply":
		if p.Status != "ok" {
			return false
		}
		c.onceful.Do(func() { close(c.joined) })
	case "phx_error", "phx_close":
		return false
	case "system":
		switch {
		case p.Status == "warning":
			c.note(p.Message)
			c.gap()
		case len(p.Message) > 7 && p.Message[:7] == "Resumed":
			c.note(p.Message)
			c.resumes++
		}
	case "postgres_changes":
		table, err := strconv.Atoi(p.Data.Table[len("soak_"):])
		if err != nil {
			c.t.Errorf("%v: %s", err, payload)
			return false
		}
		c.row(table, p.Data.Record.Writer, p.Data.Record.Seq, p.Data.Record.Reader)
	}
	return true
}

// gap notes that rows are lost. Called with mu held.
func (c *soakClient) gap() {
	c.gaps++
	for table := range soakTables {
		for writer := range soakWriters {
			k := [2]int{table, writer}
			if _, ok := c.open[k]; !ok {
				c.open[k] = c.lastOf(k)
			}
		}
	}
}

// lastOf returns the last row that was new. Called with mu held.
func (c *soakClient) lastOf(k [2]int) int {
	if last, ok := c.last[k]; ok {
		return last
	}
	return -1
}

// note keeps a line for a failure. Called with mu held.
func (c *soakClient) note(what string) {
	lasts := make([]int, 0, soakTables*soakWriters)
	for table := range soakTables {
		for writer := range soakWriters {
			lasts = append(lasts, c.lastOf([2]int{table, writer}))
		}
	}
	c.history = append(c.history, fmt.Sprintf("%s %s: %d", time.Now().Format("15:04:05.000"), what, lasts))
}

// excuses reports whether a gap explains that a row is missing. Called with mu held.
func (c *soakClient) excuses(k [2]int, seq int) bool {
	if from, ok := c.open[k]; ok && from < seq {
		return true
	}
	return slices.ContainsFunc(c.excused[k], func(g [2]int) bool { return g[0] < seq && seq < g[1] })
}

// row notes a row. Called with mu held.
func (c *soakClient) row(table, writer, seq, reader int) {
	if table == 1 && reader != c.number {
		c.t.Errorf("client %d sees row %d of writer %d, which is reader %d's", c.number, seq, writer, reader)
	}
	k := [2]int{table, writer}
	if here, ok := c.here[k]; ok && seq <= here {
		c.t.Errorf("client %d: row %d of writer %d in table %d comes behind row %d on one socket", c.number, seq, writer, table, here)
	}
	c.here[k] = seq
	if c.seen[k] == nil {
		c.seen[k] = map[int]bool{}
	}
	if c.seen[k][seq] {
		c.repeats++
		return
	}
	last := c.lastOf(k)
	if seq < last && !c.excuses(k, seq) {
		c.t.Errorf("client %d: row %d of writer %d in table %d comes behind row %d, and no gap explains it", c.number, seq, writer, table, last)
	}
	if from, ok := c.open[k]; ok && seq > last {
		c.excused[k] = append(c.excused[k], [2]int{from, seq})
		delete(c.open, k)
	}
	c.seen[k][seq], c.last[k] = true, max(seq, last)
	c.rows++
}

// missing returns how many rows are not there, how many of them a gap excuses, and
// one of the others.
func (c *soakClient) missing(want map[[2]int][]int) (n, excused int, one string, rows int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, seqs := range want {
		for _, seq := range seqs {
			if (k[0] != 1 || seq%soakClients == c.number) && !c.seen[k][seq] {
				n++
				if c.excuses(k, seq) {
					excused++
					continue
				}
				one = fmt.Sprintf("row %d of writer %d in table %d", seq, k[1], k[0])
			}
		}
	}
	return n, excused, one, c.rows
}

// complete waits until the client has everything, or gets nothing more. Who was told
// of a gap may lack rows.
func (c *soakClient) complete(t *testing.T, want map[[2]int][]int) {
	t.Helper()
	before := -1
	for still := 0; still < 60; {
		n, _, _, rows := c.missing(want)
		if n == 0 {
			return
		}
		if still++; rows != before {
			before, still = rows, 0
		}
		time.Sleep(500 * time.Millisecond) // for something to come
	}
	n, excused, one, _ := c.missing(want)
	if n > excused {
		t.Errorf("client %d lacks %d rows that no gap explains: %s\n%s", c.number, n-excused, one, strings.Join(c.history, "\n"))
	}
	t.Logf("client %d lacks %d rows that it was told of", c.number, excused)
}

// cutter is a TCP proxy whose connections can be cut.
type cutter struct {
	t      *testing.T
	l      net.Listener
	target string

	mu    sync.Mutex
	conns map[net.Conn]bool
	all   sync.WaitGroup
}

func newCutter(t *testing.T, target string) *cutter {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &cutter{t: t, l: l, target: u.Host, conns: map[net.Conn]bool{}}
	p.all.Go(p.run)
	t.Cleanup(func() { l.Close(); p.cut(1 << 20); p.all.Wait() })
	return p
}

func (p *cutter) addr() string { return p.l.Addr().String() }

func (p *cutter) run() {
	for {
		from, err := p.l.Accept()
		if err != nil {
			return
		}
		to, err := net.Dial("tcp", p.target)
		if err != nil {
			from.Close()
			continue
		}
		p.mu.Lock()
		p.conns[from] = true
		p.mu.Unlock()
		done := func() {
			from.Close()
			to.Close()
			p.mu.Lock()
			delete(p.conns, from)
			p.mu.Unlock()
		}
		for _, c := range [][2]net.Conn{{from, to}, {to, from}} {
			p.all.Go(func() {
				defer done()
				_, _ = io.Copy(c[0], c[1])
			})
		}
	}
}

// cut ends n connections, whichever.
func (p *cutter) cut(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if n--; n < 0 {
			return
		}
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // what is under way is lost
		}
		c.Close()
	}
}
