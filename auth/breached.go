package auth

import (
	"bufio"
	"context"
	"crypto/sha1" //nolint:gosec // the list is indexed by it
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/sluice-dev/sluice"
)

const (
	breachedURL  = "https://api.pwnedpasswords.com/range/"
	breachedTime = 3 * time.Second
)

// breachedList is a list of passwords that were stolen somewhere, in ranges of the
// first five digits of their SHA-1: no more of a password leaves this machine.
type breachedList struct {
	url    string
	client *http.Client
}

// newBreachedList is nil, which knows no password, unless it is switched on.
func newBreachedList(on bool, url string) *breachedList {
	if !on {
		return nil
	}
	if url == "" {
		url = breachedURL
	}
	return &breachedList{url, outbound(hostOf(url))}
}

// has reports whether a password is on the list.
func (l *breachedList) has(ctx context.Context, password string) (bool, error) {
	sum := sha1.Sum([]byte(password)) //nolint:gosec // as above
	digest := strings.ToUpper(hex.EncodeToString(sum[:]))
	ctx, cancel := context.WithTimeout(ctx, breachedTime)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url+digest[:5], nil)
	if err != nil {
		return false, err
	}
	r.Header.Set("Add-Padding", "true") // so that the size of the answer tells nothing
	res, err := l.client.Do(r)
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return false, fmt.Errorf("the list of breached passwords answers %s", res.Status)
	}
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		suffix, count, _ := strings.Cut(strings.TrimSpace(lines.Text()), ":")
		if strings.EqualFold(suffix, digest[5:]) && count != "0" { // of padding
			return true, nil
		}
	}
	return false, lines.Err()
}

// breached asks the list. One that does not answer knows no password: nobody is kept
// from signing up by that.
func (s *Server) breached(ctx context.Context, password string) bool {
	if s.breachedList == nil || password == "" {
		return false
	}
	found, err := s.breachedList.has(ctx, password)
	if err != nil {
		s.cfg.Logger.Warn("auth: the list of breached passwords was not asked; the password is taken", sluice.LogError, err)
	}
	return found
}
