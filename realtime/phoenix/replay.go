package phoenix

import (
	"encoding/json"
	"errors"
	"strconv"
	"time"
)

// Replay is config.broadcast.replay of a join.
type Replay struct {
	Since time.Time
	Limit int // 1 to MaxReplay
}

// MaxReplay is the most messages that one join replays, and the default.
const MaxReplay = 25

// ErrReplayParams are parameters that no replay can be made of. The text is the
// original's.
var ErrReplayParams = errors.New("Replay params are not valid")

// Bounds of since in milliseconds: the calendar of the original, the years -9999
// to 9999.
const (
	minSince = -377705116800000
	maxSince = 253402300799999
)

// ParseReplay reads config.broadcast.replay, which must be a JSON object. since
// is required. A limit out of range is brought into it.
func ParseReplay(raw json.RawMessage) (Replay, error) {
	m, ok := members(raw)
	if !ok {
		return Replay{}, ErrReplayParams
	}
	since, err := integer(m["since"])
	if err != nil || since < minSince || since > maxSince {
		return Replay{}, ErrReplayParams
	}
	// No message is older than 1970; PostgreSQL's calendar ends before ours.
	r := Replay{Since: time.UnixMilli(max(since, 0)).UTC(), Limit: MaxReplay}
	if limit := m["limit"]; len(limit) > 0 && !IsNull(limit) {
		n, err := integer(limit)
		if err != nil && !errors.Is(err, strconv.ErrRange) {
			return Replay{}, ErrReplayParams
		}
		// Out of range, ParseInt has returned the nearest number.
		r.Limit = int(min(max(n, 1), MaxReplay))
	}
	return r, nil
}

// integer reads a JSON number without fraction and exponent.
func integer(raw json.RawMessage) (int64, error) {
	return strconv.ParseInt(string(raw), 10, 64)
}
