package main

import (
	"bufio"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/sluice-dev/sluice/project"
)

// controlAddress is where a running stack takes requests of other commands: a
// loopback port and a token that only the owner of .sluice/state.json can read.
type controlAddress struct {
	URL   string `json:"url"`
	Token string `json:"token"`
}

// controlLine is one line of an answer: progress, or the end with its error.
type controlLine struct {
	Say   string `json:"say,omitempty"`
	Done  bool   `json:"done,omitempty"`
	Error string `json:"error,omitempty"`
}

// resetRequest is a `db reset` on its way to stack.run.
type resetRequest struct {
	project *project.Project // the folder as it is now
	noSeed  bool
	lines   chan string
	gone    <-chan struct{} // closed when nobody listens any more
	done    chan error      // buffered: one answer
	once    sync.Once
	failure error // owned by stack.run until the services begin
}

// say passes a line of progress on.
func (r *resetRequest) say(line string) {
	select {
	case r.lines <- line:
	case <-r.gone:
	}
}

// finish ends the request with what the project's scripts came to.
func (r *resetRequest) finish() {
	if r != nil {
		r.answer(r.failure)
	}
}

// answer ends the request; only the first call has an effect. A nil request
// needs no answer.
func (r *resetRequest) answer(err error) {
	if r != nil {
		r.once.Do(func() { r.done <- err })
	}
}

// controlHandler takes requests of this program's other commands.
func (st *stack) controlHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /db/reset", func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte("Bearer "+st.state.Control.Token)) != 1 {
			http.Error(w, "wrong token", http.StatusForbidden)
			return
		}
		req := &resetRequest{
			noSeed: r.URL.Query().Get("seed") == "false",
			lines:  make(chan string), gone: r.Context().Done(), done: make(chan error, 1),
		}
		var err error
		if req.project, err = st.db.reload(); err != nil {
			req.answer(err) // before anything is stopped
			relay(w, req)
			return
		}
		select {
		case st.resets <- req: // after those that came before
		case <-r.Context().Done():
			return
		}
		relay(w, req)
	})
	return mux
}

// relay writes a request's progress and end until nobody listens.
func relay(w http.ResponseWriter, req *resetRequest) {
	enc, flush := json.NewEncoder(w), http.NewResponseController(w).Flush
	for {
		var line controlLine
		select {
		case text := <-req.lines:
			line.Say = text
		case err := <-req.done:
			line.Done = true
			if err != nil {
				line.Error = err.Error()
			}
		case <-req.gone:
			return
		}
		if enc.Encode(line) != nil || flush() != nil || line.Done {
			return
		}
	}
}

// askReset asks a running stack to reset its database and shows its progress.
func askReset(ctx context.Context, s *state, noSeed bool, stderr io.Writer) error {
	url := s.Control.URL + "/db/reset"
	if noSeed {
		url += "?seed=false"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		return fmt.Errorf("ask the running stack: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+s.Control.Token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask the running stack: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("ask the running stack: it answers %s; was it started by another version of sluice?", res.Status)
	}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 16<<20) // an error shows the statement
	for lines.Scan() {
		var line controlLine
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return fmt.Errorf("read the running stack's answer: %w", err)
		}
		switch {
		case !line.Done:
			fmt.Fprintln(stderr, line.Say)
		case line.Error != "":
			return errors.New(line.Error)
		default:
			return nil
		}
	}
	if ctx.Err() != nil {
		return errors.New("interrupted; the running stack goes on with the reset")
	}
	return errors.New("the running stack ended before the reset did; see .sluice/sluice.log, or start it again")
}
