package inspect

import (
	"context"

	"github.com/sluice-dev/sluice"
)

// WhyRequest asks why somebody did not get a change.
type WhyRequest struct {
	// Table is schema.table, or a table of schema public. Required.
	Table string
	// User is a user's id or mail address; empty is who has not signed in.
	User string
	// Key is the row's primary key by column; with a key of one column its name may
	// be empty. Without it the latest changes are looked at.
	Key map[string]string
}

// Verdict is the outcome of one step.
type Verdict string

// Verdicts.
const (
	Passes Verdict = "passes"
	Stops  Verdict = "stops"
	Notes  Verdict = "notes" // worth knowing, and no reason
)

// Step is one hop of a change on its way to a client.
type Step struct {
	Hop     string  `json:"hop"` // stream, publication, user, socket, channel, or a sluice.Stage
	Verdict Verdict `json:"verdict"`
	Text    string  `json:"text"`
	Remedy  string  `json:"remedy,omitempty"`
}

// Why is the answer, hop by hop.
type Why struct {
	Table string `json:"table"`
	User  string `json:"user,omitempty"` // id
	Role  string `json:"role"`
	Steps []Step `json:"steps"`
	// Stopped is the first hop that stops the change; empty when nothing does.
	Stopped string        `json:"stopped,omitempty"`
	Trace   *sluice.Trace `json:"trace,omitempty"`
}

// Why follows the changes of a table to one user's sockets and names the hop that
// stops them. The error is of kind sluice.ErrNotFound when there is no such table or
// user, sluice.ErrInvalid when the request makes no sense.
func (s *Server) Why(ctx context.Context, r WhyRequest) (*Why, error) {
	return nil, sluice.ErrUnavailable
}
