package auth_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/auth"
)

// listen serves Auth over a socket, with the identity that the gateway finds.
func (s *stack) listen(next http.Handler) string {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(sluice.WithIdentity(r.Context(), s.identify(r))))
	}))
	s.t.Cleanup(srv.Close)
	return srv.URL
}

// get asks for a page as the bearer and reads the answer.
func get(client *http.Client, url, token string) error {
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	res, err := client.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != 200 {
		return fmt.Errorf("%s: %w", res.Status, err)
	}
	return nil
}

// BenchmarkGetUser asks GET /user over a socket: a handler that writes as much and
// does nothing, one that verifies the token, and Auth, which reads user, identities,
// factors and session from the database.
func BenchmarkGetUser(b *testing.B) {
	s := start(b, nil)
	in := s.signUp("a@example.com")
	text := []byte(s.do("GET", "/user", nil, as(in.access())).ok(200).text)
	write := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(text)
	})
	bare := httptest.NewServer(write)
	b.Cleanup(bare.Close)
	for _, c := range []struct{ name, url string }{
		{"minimal", bare.URL}, {"verified", s.listen(write)}, {"sluice", s.listen(s.server)},
	} {
		b.Run(c.name, func(b *testing.B) {
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
			b.SetParallelism(8)
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					if err := get(client, c.url+"/user", in.access()); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
		})
	}
}

// BenchmarkUserWhileSignIns measures GET /user while 50 people a second sign in by
// password, more than two cores can hash: with as many workers as Sluice has by
// default, and with one for every core. (Without a bound, requests time out.)
func BenchmarkUserWhileSignIns(b *testing.B) {
	for _, c := range []struct {
		name    string
		workers int
		rate    time.Duration
	}{
		{"quiet", 0, 0}, {"bounded", 0, 20 * time.Millisecond}, {"every core", runtime.GOMAXPROCS(0), 20 * time.Millisecond},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := start(b, nil)
			in := s.signUp("a@example.com") // its hash is cheap; what nobody knows is compared with a full one
			s.server = s.serve(func(cfg *auth.Config) { cfg.HashWorkers = c.workers })
			s.server.UseFullHashes(c.workers)
			url := s.listen(s.server)
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
			ctx, stop := context.WithCancel(context.Background())
			var signIns sync.WaitGroup
			if c.rate > 0 {
				signIns.Go(func() { storm(ctx, url, c.rate, &signIns) })
			}
			took := make([]time.Duration, 0, b.N)
			tick := time.NewTicker(5 * time.Millisecond)
			b.ResetTimer()
			for range b.N {
				<-tick.C
				begin := time.Now()
				if err := get(client, url+"/user", in.access()); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(begin))
			}
			b.StopTimer()
			tick.Stop()
			stop()
			signIns.Wait()
			slices.Sort(took)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		})
	}
}

// storm signs in at a rate, whatever comes of it, until ctx ends.
func storm(ctx context.Context, url string, every time.Duration, all *sync.WaitGroup) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1000}}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		all.Go(func() {
			body := strings.NewReader(`{"email":"nobody@example.com","password":"wrong"}`)
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/token?grant_type=password", body)
			if err != nil {
				return
			}
			if res, err := client.Do(r); err == nil {
				res.Body.Close()
			}
		})
	}
}
