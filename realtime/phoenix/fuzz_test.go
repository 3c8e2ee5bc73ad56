package phoenix_test

import (
	"encoding/json"
	"errors"
	"testing"
	"unicode/utf8"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

// checkReply proves that what was read can be answered: the reply is JSON and
// carries the reference that the client sent.
func checkReply(t *testing.T, v phoenix.Version, m phoenix.Message) {
	out := phoenix.AppendReply(nil, v, m.JoinRef, m.Ref, m.Topic, "ok", []byte("{}"))
	if !json.Valid(out) || !utf8.Valid(out) {
		t.Fatalf("reply is not JSON: %q", out)
	}
}

// checkRelay proves that a message relayed to others cannot break them.
func checkRelay(t *testing.T, m phoenix.Message) {
	b := sluice.Broadcast{Payload: m.Payload, Event: m.UserEvent}
	if m.Form == phoenix.UserBroadcast {
		b.Form = sluice.BroadcastBinary
		if m.JSON {
			b.Form = sluice.BroadcastJSON
		}
	}
	for _, v := range []phoenix.Version{phoenix.V1, phoenix.V2} {
		out, binary, err := phoenix.AppendBroadcast(nil, v, m.Topic, &b)
		if err == nil && !binary && (!json.Valid(out) || !utf8.Valid(out)) {
			t.Fatalf("version %d would get %q", v, out)
		}
	}
}

func fuzzText(f *testing.F, v phoenix.Version) {
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := phoenix.Decode(v, data, false)
		if err != nil {
			var fe *phoenix.FrameError
			if !errors.As(err, &fe) {
				t.Fatalf("error is %T", err)
			}
			return
		}
		if !json.Valid(m.Payload) {
			t.Fatalf("payload %q", m.Payload)
		}
		checkReply(t, v, m)
		checkRelay(t, m)
		phoenix.ParseAccessToken(m.Payload)
		phoenix.ParsePresence(m.Payload)
		// The same through encoding/json.
		if v == phoenix.V2 {
			var a []json.RawMessage
			var topic, event string
			if json.Unmarshal(data, &a) != nil || len(a) < 5 || json.Unmarshal(a[2], &topic) != nil || json.Unmarshal(a[3], &event) != nil ||
				topic != m.Topic || event != m.Event || string(a[4]) != string(m.Payload) {
				t.Fatalf("read %+v from %q", m, data)
			}
		}
	})
}

func FuzzDecodeV1(f *testing.F) {
	for _, s := range []string{
		`{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"7"}`,
		`{"topic":"realtime:room1","event":"phx_join","payload":{"config":{"broadcast":{"ack":false}}},"ref":"1","join_ref":"1"}`,
		`{"topic":"realtime:\u00e4\ud83d\ude00","event":"broadcast","payload":"text","ref":null}`,
		`{"topic":"a","topic":"b","event":"e","payload":[[[]]],"ref":-1.5e3}`,
		`{}`, `[]`, ``, `{"a"`, `{"topic":5}`,
	} {
		f.Add([]byte(s))
	}
	fuzzText(f, phoenix.V1)
}

func FuzzDecodeV2(f *testing.F) {
	for _, s := range []string{
		`[null,"7","phoenix","heartbeat",{}]`,
		`["1","1","realtime:room1","phx_join",{"config":{"presence":{"key":"","enabled":false}},"access_token":"eyJ"}]`,
		`["1","5","realtime:room1","broadcast",{"type":"broadcast","event":"hi","payload":{"a":1}}]`,
		` [ 1 , 2 , "t" , "e" , "p" , 6 ] `, `[1,2,3,4,5]`, `[]`, `[[`, `["\ud800","","\u0000","e",{}]`,
	} {
		f.Add([]byte(s))
	}
	fuzzText(f, phoenix.V2)
}

func FuzzDecodeBinary(f *testing.F) {
	f.Add([]byte("\x03\x01\x01\x0e\x02\x00\x0115realtime:room1hi{\"a\":1}"))
	f.Add([]byte("\x03\x01\x01\x0e\x03\x00\x0016realtime:room1bin\xde\xad"))
	f.Add([]byte("\x03\x00\x00\x01\x01\x02\x01te{}1"))
	f.Add([]byte("\x00\x01\x01\x01\x0112tebytes"))
	f.Add([]byte("\x04\x00"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := phoenix.Decode(phoenix.V2, data, true)
		if err != nil {
			var fe *phoenix.FrameError
			if !errors.As(err, &fe) {
				t.Fatalf("error is %T", err)
			}
			return
		}
		checkReply(t, phoenix.V2, m)
		if m.Form == phoenix.UserBroadcast {
			checkRelay(t, m)
		}
	})
}

func FuzzParseJoin(f *testing.F) {
	for _, s := range []string{
		`{"config":{"broadcast":{"ack":false,"self":"TRUE"},"presence":{"key":"","enabled":false},"postgres_changes":[{"event":"*","schema":"public","table":"todos","filter":"id=eq.1","select":["id"]},null],"private":false},"access_token":"eyJ","version":"realtime-js/2"}`,
		`{"config":{"broadcast":{"replay":{"since":1,"limit":2}},"presence":{"key":7}},"user_token":"sb_x","access_token":false}`,
		`{"config":null}`, `{"config":[]}`, `{}`, `[]`, `null`, `5`, `{"config":{"postgres_changes":[{"id":1,"\u0069d":2}]}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if !json.Valid(data) || !utf8.Valid(data) {
			return
		}
		j, err := phoenix.ParseJoin(data, 10)
		if err != nil {
			var je *phoenix.JoinError
			if !errors.As(err, &je) {
				t.Fatalf("error is %T", err)
			}
			return
		}
		if len(j.Changes) > 10 || j.HasToken && phoenix.IsAPIKey(j.Token) {
			t.Fatalf("join is %+v", j)
		}
		ids, err := phoenix.BindingIDs(j.Changes)
		if err != nil {
			t.Fatal(err)
		}
		out := phoenix.AppendJoinResponse(nil, j.Changes, ids)
		var back struct {
			Changes []map[string]any `json:"postgres_changes"`
		}
		if err := json.Unmarshal(out, &back); err != nil || len(back.Changes) != len(ids) {
			t.Fatalf("response %q: %v", out, err)
		}
		for i, b := range back.Changes {
			if b["id"] != float64(ids[i]) {
				t.Fatalf("id is not echoed in %q", out)
			}
		}
		if !json.Valid(phoenix.LegacyChanges(string(data))) {
			t.Fatal("legacy binding is not JSON")
		}
	})
}

// FuzzReplay proves that whatever is accepted can be asked of the database.
func FuzzReplay(f *testing.F) {
	for _, seed := range []string{`{"since":1723100000000,"limit":10}`, `{"since":-1}`, `{"since":1e3,"limit":null}`, `[]`, `{"since":`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := phoenix.ParseReplay(raw)
		if err != nil {
			return
		}
		if r.Limit < 1 || r.Limit > phoenix.MaxReplay || r.Since.Year() < 1970 || r.Since.Year() > 9999 {
			t.Fatalf("%q: %+v", raw, r)
		}
	})
}
