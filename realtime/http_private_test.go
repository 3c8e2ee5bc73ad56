package realtime_test

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

// Of a batch only the messages for permitted topics are delivered, behind the
// public ones, and the answer is 202 all the same. Each topic is asked about once.
// spec: realtime:132
func TestPrivateBatch(t *testing.T) {
	t.Parallel()
	for _, v := range []phoenix.Version{phoenix.V1, phoenix.V2} {
		t.Run(fmt.Sprintf("vsn=%d.0.0", v), func(t *testing.T) {
			db := pgtest.New(t)
			db.Exec(counted + `
create policy topics on realtime.messages as restrictive for insert with check (realtime.topic() like 'open%' or realtime.topic() = 'boom' and 1 / (length(topic) - 4) > 0);`)
			w := realWorld(t, db)
			c := w.connect(v)
			for _, topic := range []string{"open1", "open2", "closed", "boom"} {
				c.open("realtime:"+topic, private(may("b", "")))
			}
			c.open("realtime:closed2", emptyJoin)
			claims, err := fakeTokens{}.Verify(may("", "b"))
			if err != nil {
				t.Fatal(err)
			}
			var list []string
			for n, topic := range []string{"open1", "closed", "open2", "boom", "open1", "closed", "open1"} {
				list = append(list, fmt.Sprintf(`{"topic":%q,"event":"e","payload":{"n":%d},"private":true}`, topic, n))
			}
			list = append(list, `{"topic":"closed2","event":"e","payload":{"n":7}}`)
			rec := w.post(&sluice.Identity{Claims: claims}, batchPath, "application/json", `{"messages":[`+strings.Join(list, ",")+`]}`)
			if rec.Code != 202 || rec.Body.Len() != 0 {
				t.Errorf("answer is %d %s", rec.Code, rec.Body)
			}
			const wrapped = `broadcast {"type":"broadcast","event":"e","payload":{"n":%d}}`
			for _, n := range []int{7, 0, 2, 4, 6} {
				c.expect(fmt.Sprintf(wrapped, n))
			}
			c.quiet()
			var asked int
			if err := db.Admin().QueryRow(t.Context(), "select last_value from public.asked_broadcast").Scan(&asked); err != nil || asked > 4 {
				t.Errorf("asked %d times about 4 topics: %v", asked, err)
			}
			if n := w.srv.Metrics().PolicyChecks.Load(); n != 4+4 {
				t.Errorf("%d checks for 4 joins and 4 topics", n)
			}

			// Nobody may send: still 202.
			rec = w.post(&anon, batchPath, "application/json", `{"messages":[`+list[0]+`]}`)
			if rec.Code != 202 {
				t.Errorf("answer is %d %s", rec.Code, rec.Body)
			}
			c.quiet()
		})
	}
}

// More topics than a flush holds.
func TestPrivateBatchOfManyTopics(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(openPolicies)
	w := realWorld(t, db)
	claims, err := fakeTokens{}.Verify(may("", "b"))
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for i := range 100 {
		list = append(list, fmt.Sprintf(`{"topic":"%d","event":"e","payload":{},"private":true}`, i))
	}
	if rec := w.post(&sluice.Identity{Claims: claims}, batchPath, "application/json", `{"messages":[`+strings.Join(list, ",")+`]}`); rec.Code != 202 {
		t.Errorf("answer is %d %s", rec.Code, rec.Body)
	}
	if n := w.srv.Metrics().Broadcasts.Load(); n != 100 {
		t.Errorf("%d of 100 went out", n)
	}
}

// Policies see an HTTP broadcast's headers, credentials left out.
func TestPoliciesSeeHeaders(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(`create policy headers on realtime.messages for insert to anon with check (
  current_setting('request.headers')::jsonb = '{"user-agent":"test","x-tenant":"acme","content-type":"application/json"}');`)
	w := realWorld(t, db)
	r := httptest.NewRequest("POST", "/api/broadcast/room/events/e?private=true", strings.NewReader(`{}`))
	for name, value := range map[string]string{
		"User-Agent": "test", "X-Tenant": "acme", "Content-Type": "application/json",
		"Authorization": "Bearer secret", "ApiKey": "secret", "X-API-Key": "secret", "Cookie": "secret",
	} {
		r.Header.Set(name, value)
	}
	rec := httptest.NewRecorder()
	w.srv.ServeHTTP(rec, r.WithContext(sluice.WithIdentity(r.Context(), anon)))
	if rec.Code != 202 {
		t.Errorf("answer is %d %s", rec.Code, rec.Body)
	}
}
