package doctor

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sluice-dev/sluice"
)

// viewPath is where a Sluice tells what it knows of itself; see package inspect.
const viewPath = "/sluice/v1/"

// recently is how far back a server's refusals are worth telling.
const recently = 10 * time.Minute

// errNoView says that the server has no view, or none for this key.
var errNoView = errors.New("the server cannot be asked")

// checkServer asks a Sluice for its own view: who it takes the app's key and the
// user's token for, and with the secret key how its change stream is, what becomes
// of the tables, and what it has refused lately.
func (v *visit) checkServer(ctx context.Context) []Finding {
	header := v.keyed()
	if v.userToken != "" {
		header["Authorization"] = "Bearer " + string(v.userToken)
	}
	var me struct {
		Key     string              `json:"key"`
		Role    string              `json:"role"`
		Subject string              `json:"sub"`
		Token   *sluice.RefusalView `json:"token_refused"`
	}
	if err := v.askView(ctx, "me", header, &me); err != nil || me.Role == "" {
		return []Finding{skip("not a Sluice, which could be asked for its own view")}
	}
	if me.Token != nil {
		f := fail(me.Token.Code, "The server refuses the user's token: %s", me.Token.Text)
		f.Remedy = me.Token.Remedy
		return []Finding{f.evidence("GET %sme → key %s, token refused", viewPath, me.Key)}
	}
	who := "nobody in particular"
	if me.Subject != "" {
		who = "user " + me.Subject
	}
	findings := []Finding{ok("the server takes the key as %s, and the requests for role %s, %s", me.Key, me.Role, who)}
	if v.cfg.SecretKey == "" {
		return append(findings, skip("what the server knows of streams, tables and refusals needs the secret key (--secret-key)"))
	}
	findings = append(findings, v.checkView(ctx)...)
	for _, t := range v.cfg.Tables {
		findings = append(findings, v.askWhy(ctx, t, me.Subject))
	}
	return findings
}

// askView reads one page of the server's view.
func (v *visit) askView(ctx context.Context, page string, header map[string]string, into any) error {
	a, err := v.send(ctx, http.MethodGet, viewPath+page, header, nil)
	switch {
	case err != nil:
		return err
	case a.status != http.StatusOK:
		return fmt.Errorf("%s: %w", a, errNoView)
	}
	if err := json.Unmarshal(a.body, into); err != nil {
		return fmt.Errorf("%s: %w", a, errNoView)
	}
	return nil
}

func (v *visit) secretly() map[string]string {
	return map[string]string{"Apikey": string(v.cfg.SecretKey)}
}

// checkView judges the change stream and sums the refusals up, but for those that
// this visit has caused.
func (v *visit) checkView(ctx context.Context) []Finding {
	var view struct {
		Stream struct {
			Streaming bool   `json:"streaming"`
			Slot      string `json:"slot"`
			Behind    int64  `json:"behind_bytes"`
			Gaps      int    `json:"gaps"`
			Error     string `json:"error"`
		} `json:"stream"`
		Sockets  int `json:"sockets_total"`
		Refusals []struct {
			At     time.Time   `json:"at"`
			Code   sluice.Code `json:"code"`
			Remedy string      `json:"remedy"`
		} `json:"refusals"`
	}
	if err := v.askView(ctx, "view?limit=1", v.secretly(), &view); err != nil {
		return []Finding{warn(sluice.CodeInvalidAPIKey, "The server does not show itself to the secret key").evidence("%v", err).
			remedy("Compare --secret-key with `sluice status`.")}
	}
	st := view.Stream
	var findings []Finding
	if st.Streaming {
		findings = append(findings, ok("the change stream is up (slot %s, %d KB behind); open sockets: %d", st.Slot, st.Behind>>10, view.Sockets))
	} else {
		f := fail(CodeSlot, "The server does not read changes from PostgreSQL: %s", st.Error).evidence("GET %sview → streaming: false, slot: %s, error: %q", viewPath, st.Slot, st.Error).
			remedy("See whether PostgreSQL runs, and `sluice slot status`.")
		if codeOf(st.Error) == CodeSlot {
			f = f.remedy("%s", slotRemedy(st.Error))
		}
		findings = append(findings, f)
	}
	counts, remedies := map[sluice.Code]int{}, map[sluice.Code]string{}
	for _, r := range view.Refusals {
		if age := v.began.Sub(r.At); age > 0 && age < recently {
			counts[r.Code]++
			remedies[r.Code] = r.Remedy
		}
	}
	if len(counts) == 0 {
		return findings
	}
	codes := slices.SortedFunc(maps.Keys(counts), func(a, b sluice.Code) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	var texts []string
	for _, c := range codes {
		texts = append(texts, fmt.Sprintf("%s (%d)", c, counts[c]))
	}
	f := ok("in the last ten minutes the server has refused: %s", strings.Join(texts, ", "))
	return append(findings, f.remedy("%s: %s", codes[0], cmp.Or(remedies[codes[0]], "see `sluice logs --code "+string(codes[0])+"`")))
}

// askWhy asks what becomes of a table's changes for the user, as far as no channel is
// needed for it: the doctor's own are closed by then.
func (v *visit) askWhy(ctx context.Context, name, subject string) Finding {
	schema, table := named(name)
	var why struct {
		Table string `json:"table"`
		Role  string `json:"role"`
		Steps []struct {
			Hop     string `json:"hop"`
			Verdict string `json:"verdict"`
			Text    string `json:"text"`
			Remedy  string `json:"remedy"`
		} `json:"steps"`
		Trace struct {
			Published []string `json:"published"`
			Tier      int      `json:"tier"`
		} `json:"trace"`
	}
	q := url.Values{"table": {schema + "." + table}, "user": {subject}}
	if err := v.askView(ctx, "why?"+q.Encode(), v.secretly(), &why); err != nil {
		return skip("the server was asked about %s.%s: %v", schema, table, err)
	}
	for _, s := range why.Steps {
		if s.Verdict == "stops" && s.Hop == string(sluice.StagePublication) {
			return fail(sluice.CodeTableNotPublished, "%s", s.Text).evidence("GET %swhy → stopped at %s", viewPath, s.Hop).remedy("%s", s.Remedy)
		}
	}
	return ok("%s: the server publishes %s, and decides for role %s by policies of tier %d", why.Table, strings.Join(why.Trace.Published, ", "), why.Role, why.Trace.Tier)
}
