package realtime

import (
	"context"
	"net/http"

	"github.com/sluice-dev/sluice"
)

// permitted returns the messages of a batch that may be sent: the public ones,
// then those private ones whose topic's policies allow it. The others are skipped
// in silence. Each topic is asked about once, and a batch never has more checks
// under way than one flush holds.
func (s *Server) permitted(r *http.Request, claims sluice.Claims, messages []batchMessage) []batchMessage {
	var out, private []batchMessage
	var probes []*probe
	asked := map[string]*probe{}
	for _, m := range messages {
		if !m.topic.Private {
			out = append(out, m)
			continue
		}
		private = append(private, m)
		if asked[m.topic.Name] == nil {
			q := broadcastProbe(r, claims, m.topic.Name)
			asked[m.topic.Name], probes = q, append(probes, q)
		}
	}
	allowed := map[*probe]bool{}
	for len(probes) > 0 {
		n := min(len(probes), probesAtOnce)
		for i, a := range s.askHTTP(r, probes[:n]) {
			allowed[probes[i]] = a.allowed[broadcasts]
			if !a.allowed[broadcasts] {
				s.logSkipped(r, claims, probes[i].topic, a.err)
			}
		}
		probes = probes[n:]
	}
	for _, m := range private {
		if allowed[asked[m.topic.Name]] {
			out = append(out, m)
		}
	}
	return out
}

// permit reports whether the caller may send to a private topic, or answers why
// not.
func (s *Server) permit(w http.ResponseWriter, r *http.Request, claims sluice.Claims, topic string) bool {
	a := s.askHTTP(r, []*probe{broadcastProbe(r, claims, topic)})[0]
	if a.allowed[broadcasts] {
		return true
	}
	s.logSkipped(r, claims, topic, a.err)
	code := sluice.CodeUnauthorized
	if a.err != nil {
		code = a.err.Code
	}
	setRefused(w, code)
	answer := broadcastRefusal(code)
	writeJSON(w, answer.status, message(answer.text))
	return false
}

func broadcastProbe(r *http.Request, claims sluice.Claims, topic string) *probe {
	return &probe{claims: claims, topic: topic, headers: capturedHeaders(r.Header, ""), write: true, of: []extension{broadcasts}}
}

// askHTTP waits for the answers to a request's probes, as long as a join would.
func (s *Server) askHTTP(r *http.Request, probes []*probe) []answer {
	ctx, cancel := context.WithTimeout(r.Context(), s.cfg.JoinTimeout)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	for _, q := range probes {
		s.policies.submit(ctx, q)
	}
	out := make([]answer, len(probes))
	for i, q := range probes {
		out[i] = s.policies.wait(q)
	}
	return out
}

func (s *Server) logSkipped(r *http.Request, claims sluice.Claims, topic string, refusal *sluice.Refusal) {
	s.metrics.DroppedDenied.Add(1)
	if refusal == nil {
		refusal = sluice.Refuse(sluice.CodeUnauthorized).WithText("policies of realtime.messages do not allow it")
	}
	id, _ := sluice.IdentityFrom(r.Context())
	s.log.Info("private broadcast not sent", sluice.LogRequest, id.RequestID, sluice.LogTopic, topic, sluice.LogRole, claims.Role, "sub", claims.Subject,
		sluice.LogCode, refusal.Code, "text", refusal.Text, sluice.LogError, refusal.Cause)
}
