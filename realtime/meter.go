package realtime

import (
	"math"
	"net/http"
	"strconv"

	"github.com/sluice-dev/sluice"
)

// Texts of 429 answers of the HTTP broadcast endpoints.
const (
	textRate  = "You have exceeded your rate limit"
	textBatch = "Too many messages to broadcast, please reduce the batch size"
)

// metered counts a request to one of the project's routes, tells the rate in
// headers, and answers 429 while the average is at the limit.
func (s *Server) metered(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		rate := s.limits.requests
		s.metrics.HTTPRequests.Add(1)
		rate.add(1)
		average := math.Trunc(rate.perSecond())
		if !math.IsInf(rate.limit, 1) {
			w.Header().Set("X-Rate-Rolling", strconv.Itoa(int(average)))
			w.Header().Set("X-Rate-Limit", strconv.Itoa(int(rate.limit)))
			w.Header().Set("X-Rate-Limit-Remaining", strconv.Itoa(int(max(0, rate.limit-average))))
		}
		if average >= rate.limit {
			s.refuseRate(w, r, sluice.Refuse(sluice.CodeTooManyRequests))
			return
		}
		h(w, r)
	}
}

// batch says why n messages of one request may not be sent now, or nil. Unlike
// a single message, a batch may reach the limit exactly.
func (l *limits) batch(n int) *sluice.Refusal {
	switch average := l.events.perSecond(); {
	case average > l.events.limit:
		return sluice.Refuse(sluice.CodeTooManyEvents).WithText(textRate)
	case average+float64(n) > l.events.limit:
		return sluice.Refuse(sluice.CodeTooManyEvents).WithText(textBatch)
	}
	return nil
}

// refuseRate answers 429 with the original's body; code and remedy stand beside
// its message.
func (s *Server) refuseRate(w http.ResponseWriter, r *http.Request, refusal *sluice.Refusal) {
	s.metrics.RefusedRate.Add(1)
	id, _ := sluice.IdentityFrom(r.Context())
	s.log.Debug("broadcast refused", sluice.LogRequest, id.RequestID, sluice.LogCode, refusal.Code, "text", refusal.Text)
	setRefused(w, refusal.Code)
	body := message(refusal.Text)
	if s.cfg.Explain {
		body["hint"] = refusal.Remedy
	}
	writeJSON(w, refusal.Status, body)
}

// metricsPage serves the page of metrics to who holds a secret key; to others it
// answers 403 without a body, as the original does.
func (s *Server) metricsPage(w http.ResponseWriter, r *http.Request) {
	id, ok := sluice.IdentityFrom(r.Context())
	if !ok || id.Refusal != nil || id.BearerErr != nil || id.Claims.Role != "service_role" || s.cfg.MetricsPage == nil {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	s.cfg.MetricsPage.ServeHTTP(w, r)
}
