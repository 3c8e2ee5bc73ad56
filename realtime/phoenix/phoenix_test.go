package phoenix_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

func bytesOf(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseVersion(t *testing.T) {
	for in, want := range map[string]phoenix.Version{
		"": 1, "1.0.0": 1, "1.0.7": 1, "2.0.0": 2, "2.0.10": 2,
		"1": 0, "2.0": 0, "1.1.0": 0, "2.1.0": 0, "3.0.0": 0, "1.0.": 0, "1.0.01": 0, "1.0.0.0": 0, "1.0.x": 0, " 1.0.0": 0, "01.0.0": 0, "-1.0.0": 0,
		"2.0." + strings.Repeat("9", 100): 0,
	} {
		got, err := phoenix.ParseVersion(in)
		if got != want || (err == nil) != (want != 0) {
			t.Errorf("ParseVersion(%.20q) = %d, %v", in, got, err)
		}
	}
}

// The worked examples of the specification.
// spec: realtime:28
func TestDecodeKind3(t *testing.T) {
	const head = "03 01 01 0e 02 00 01 31 35 72 65 61 6c 74 69 6d 65 3a 72 6f 6f 6d 31 68 69 "
	base := phoenix.Message{Form: phoenix.UserBroadcast, JoinRef: `"1"`, Ref: `"5"`, Topic: "realtime:room1", Event: "broadcast", UserEvent: "hi", JSON: true}
	withMeta := base
	withMeta.Metadata = []byte(`{"k":1}`)
	withMeta.Payload = []byte(`{"a":1}`)
	asJSON := base
	asJSON.Metadata, asJSON.Payload = []byte{}, []byte(`{"a":1}`)
	binary := base
	binary.Ref, binary.UserEvent, binary.JSON, binary.Metadata, binary.Payload = `"6"`, "bin", false, []byte{}, []byte{0xde, 0xad}
	for name, tt := range map[string]struct {
		frame string
		want  phoenix.Message
	}{
		"json":     {head + "7b 22 61 22 3a 31 7d", asJSON},
		"binary":   {"03 01 01 0e 03 00 00 31 36 72 65 61 6c 74 69 6d 65 3a 72 6f 6f 6d 31 62 69 6e de ad", binary},
		"metadata": {"03 01 01 0e 02 07 01 31 35 72 65 61 6c 74 69 6d 65 3a 72 6f 6f 6d 31 68 69 " + hex.EncodeToString([]byte(`{"k":1}{"a":1}`)), withMeta},
	} {
		got, err := phoenix.Decode(phoenix.V2, bytesOf(t, tt.frame), true)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// spec: realtime:29
func TestDecodeKind0(t *testing.T) {
	got, err := phoenix.Decode(phoenix.V2, append([]byte{0, 1, 1, 3, 2}, "12abcev\xff\x00"...), true)
	if err != nil {
		t.Fatal(err)
	}
	want := phoenix.Message{Form: phoenix.BinaryPush, JoinRef: `"1"`, Ref: `"2"`, Topic: "abc", Event: "ev", Payload: []byte("\xff\x00")}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// The worked example, and its variants.
// spec: realtime:30
func TestEncodeKind4(t *testing.T) {
	const topic = "realtime:room1"
	for name, tt := range map[string]struct {
		b    sluice.Broadcast
		want string
	}{
		"json":        {sluice.Broadcast{Form: sluice.BroadcastJSON, Event: "hi", Payload: []byte(`{"a":1}`)}, "04 0e 02 00 01 72 65 61 6c 74 69 6d 65 3a 72 6f 6f 6d 31 68 69 7b 22 61 22 3a 31 7d"},
		"binary":      {sluice.Broadcast{Form: sluice.BroadcastBinary, Event: "b", Payload: []byte{0xde, 0xad}}, "04 0e 01 00 00 72 65 61 6c 74 69 6d 65 3a 72 6f 6f 6d 31 62 de ad"},
		"json meta":   {sluice.Broadcast{Form: sluice.BroadcastJSON, Event: "hi", Meta: []byte("{}"), Payload: []byte(`1`)}, "04 0e 02 02 01 72 65 61 6c 74 69 6d 65 3a 72 6f 6f 6d 31 68 69 7b 7d 31"},
		"binary meta": {sluice.Broadcast{Form: sluice.BroadcastBinary, Event: "b", Meta: []byte("{}"), Payload: nil}, "04 0e 01 02 00 72 65 61 6c 74 69 6d 65 3a 72 6f 6f 6d 31 62 7b 7d"},
	} {
		got, binary, err := phoenix.AppendBroadcast(nil, phoenix.V2, topic, &tt.b)
		if err != nil || !binary {
			t.Errorf("%s: binary %v, %v", name, binary, err)
		}
		if d := cmp.Diff(bytesOf(t, tt.want), got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// spec: realtime:31
func TestFieldsAreBounded(t *testing.T) {
	long := strings.Repeat("x", 256)
	for name, f := range map[string][3]string{"topic": {long, "e", ""}, "user event": {"t", long, ""}, "metadata": {"t", "e", long}} {
		var ee *phoenix.EncodeError
		if _, err := phoenix.AppendUserBroadcast(nil, f[0], f[1], []byte(f[2]), true, nil); !errors.As(err, &ee) {
			t.Errorf("%s of 256 bytes: %v", name, err)
		}
	}
	if _, err := phoenix.AppendUserBroadcast(nil, long[1:], long[1:], []byte(long[1:]), true, nil); err != nil {
		t.Errorf("255 bytes: %v", err)
	}
	// References are bounded when they are read, so that replies can carry them.
	for _, s := range []string{`["` + long + `","1","t","e",{}]`, `["1","` + long + `","t","e",{}]`} {
		var fe *phoenix.FrameError
		if _, err := phoenix.Decode(phoenix.V2, []byte(s), false); !errors.As(err, &fe) {
			t.Errorf("long reference: %v", err)
		}
	}
}

// spec: realtime:32
func TestNonObjectHasNoV2Form(t *testing.T) {
	for _, p := range []string{`"x"`, `[1]`, `5`, `null`} {
		b := sluice.Broadcast{Form: sluice.BroadcastObject, Payload: []byte(p)}
		var ee *phoenix.EncodeError
		if _, _, err := phoenix.AppendBroadcast(nil, phoenix.V2, "realtime:a", &b); !errors.As(err, &ee) {
			t.Errorf("%s: %v", p, err)
		}
		if got, _, err := phoenix.AppendBroadcast(nil, phoenix.V1, "realtime:a", &b); err != nil || !strings.Contains(string(got), `"payload":`+p) {
			t.Errorf("%s in version 1.0.0: %s, %v", p, got, err)
		}
	}
}

// Every server message in both versions.
// spec: realtime:27
func TestEncode(t *testing.T) {
	const topic = `realtime:a"b`
	type v = phoenix.Version
	for name, tt := range map[string]struct {
		make   func(v v) []byte
		v1, v2 string
	}{
		"reply": {
			func(v v) []byte { return phoenix.AppendReply(nil, v, `"1"`, `"2"`, topic, "ok", []byte(`{}`)) },
			`{"topic":"realtime:a\"b","event":"phx_reply","payload":{"status":"ok","response":{}},"ref":"2"}`,
			`["1","2","realtime:a\"b","phx_reply",{"status":"ok","response":{}}]`,
		},
		"reason": {
			func(v v) []byte { return phoenix.AppendReason(nil, v, "", "7", topic, "a\n<b>") },
			`{"topic":"realtime:a\"b","event":"phx_reply","payload":{"status":"error","response":{"reason":"a\n<b>"}},"ref":7}`,
			`[null,7,"realtime:a\"b","phx_reply",{"status":"error","response":{"reason":"a\n<b>"}}]`,
		},
		"close": {
			func(v v) []byte { return phoenix.AppendClose(nil, v, `"1"`, topic) },
			`{"topic":"realtime:a\"b","event":"phx_close","payload":{},"ref":"1"}`,
			`["1","1","realtime:a\"b","phx_close",{}]`,
		},
		"error": {
			func(v v) []byte { return phoenix.AppendError(nil, v, `"1"`, topic, "channel_crash") },
			`{"topic":"realtime:a\"b","event":"phx_error","payload":{"reason":"channel_crash"},"ref":"1"}`,
			`["1","1","realtime:a\"b","phx_error",{"reason":"channel_crash"}]`,
		},
		"system": {
			func(v v) []byte {
				return phoenix.AppendSystem(nil, v, `"1"`, topic, phoenix.System{Extension: "system", Status: "ok", Message: "m", Channel: "a"})
			},
			`{"topic":"realtime:a\"b","event":"system","payload":{"extension":"system","status":"ok","message":"m","channel":"a"},"ref":null}`,
			`["1",null,"realtime:a\"b","system",{"extension":"system","status":"ok","message":"m","channel":"a"}]`,
		},
		"operator's system": {
			func(v v) []byte {
				return phoenix.AppendSystem(nil, v, "", topic, phoenix.System{Extension: "system", Status: "ok", Message: "m"})
			},
			`{"topic":"realtime:a\"b","event":"system","payload":{"extension":"system","status":"ok","message":"m"},"ref":null}`,
			`[null,null,"realtime:a\"b","system",{"extension":"system","status":"ok","message":"m"}]`,
		},
		"change": {
			func(v v) []byte { return phoenix.AppendChange(nil, v, topic, []int64{1, 22}, []byte(`{"x":1}`)) },
			`{"topic":"realtime:a\"b","event":"postgres_changes","payload":{"ids":[1,22],"data":{"x":1}},"ref":null}`,
			`[null,null,"realtime:a\"b","postgres_changes",{"ids":[1,22],"data":{"x":1}}]`,
		},
		"object": {
			func(v v) []byte {
				b, _, _ := phoenix.AppendBroadcast(nil, v, topic, &sluice.Broadcast{Payload: []byte(`{"a": 1}`)})
				return b
			},
			`{"topic":"realtime:a\"b","event":"broadcast","payload":{"a": 1},"ref":null}`,
			`[null,null,"realtime:a\"b","broadcast",{"a": 1}]`,
		},
	} {
		for version, want := range map[phoenix.Version]string{phoenix.V1: tt.v1, phoenix.V2: tt.v2} {
			got := tt.make(version)
			if string(got) != want {
				t.Errorf("%s, version %d:\n got %s\nwant %s", name, version, got, want)
			}
			if !json.Valid(got) {
				t.Errorf("%s: not JSON", name)
			}
		}
	}
	b := &sluice.Broadcast{Form: sluice.BroadcastJSON, Event: "e", Payload: []byte(`{}`), Meta: []byte(`{"id":"x"}`)}
	got, binary, err := phoenix.AppendBroadcast(nil, phoenix.V1, "realtime:a", b)
	if want := `{"topic":"realtime:a","event":"broadcast","payload":{"type":"broadcast","event":"e","payload":{},"meta":{"id":"x"}},"ref":null}`; string(got) != want || binary || err != nil {
		t.Errorf("kind 3 for version 1.0.0: %s, %v", got, err)
	}
}

func TestDecodeText(t *testing.T) {
	want := phoenix.Message{JoinRef: `"1"`, Ref: `"2"`, Topic: "realtime:ä", Event: "broadcast", Payload: []byte(`{"a":[1,{"b":"]}"}]}`)}
	for name, tt := range map[string]struct {
		v    phoenix.Version
		text string
	}{
		"array":          {phoenix.V2, `["1","2","realtime:ä","broadcast",{"a":[1,{"b":"]}"}]}]`},
		"spaces, extras": {phoenix.V2, " [ \"1\" ,\n\"2\" , \"realtime:\\u00e4\",\t\"broadcast\" , {\"a\":[1,{\"b\":\"]}\"}]} , 5, [] ] "},
		"object":         {phoenix.V1, `{"topic":"realtime:ä","event":"broadcast","payload":{"a":[1,{"b":"]}"}]},"ref":"2","join_ref":"1"}`},
		"other order":    {phoenix.V1, ` { "x" : {} , "join_ref" : "1" , "ref":"2","payload": {"a":[1,{"b":"]}"}]} ,"event":"broadcast","t\u006fpic":"realtime:ä"}`},
	} {
		got, err := phoenix.Decode(tt.v, []byte(tt.text), false)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	m, err := phoenix.Decode(phoenix.V1, []byte(`{"topic":"phoenix","event":"heartbeat","payload":null,"ref":null}`), false)
	if err != nil || m.Ref != "" || m.JoinRef != "" || string(m.Payload) != "null" {
		t.Errorf("nulls: %+v, %v", m, err)
	}
}

func TestBindingIDs(t *testing.T) {
	raw := []json.RawMessage{[]byte(`{"a":1,"b":2}`), []byte(`{"b":2,"a":1}`), []byte(`{"a":1}`), []byte(`{"a":1.0}`)}
	ids, err := phoenix.BindingIDs(raw)
	if err != nil || ids[0] != ids[1] || ids[0] == ids[2] || ids[2] == ids[3] {
		t.Errorf("ids are %v, %v", ids, err)
	}
	again, _ := phoenix.BindingIDs(raw)
	if d := cmp.Diff(ids, again); d != "" {
		t.Error(d)
	}
	var many []json.RawMessage
	for i := range 5000 {
		b, _ := json.Marshal(map[string]int{"n": i})
		many = append(many, b)
	}
	ids, err = phoenix.BindingIDs(many)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int64]bool{0: true}
	for _, id := range ids {
		if seen[id] || id < 0 || id >= 1<<27 {
			t.Fatalf("id %d is double, 0 or out of range", id)
		}
		seen[id] = true
	}
}

func TestParseReplay(t *testing.T) {
	t.Parallel()
	at := func(ms int64, limit int) phoenix.Replay {
		return phoenix.Replay{Since: time.UnixMilli(ms).UTC(), Limit: limit}
	}
	for raw, want := range map[string]phoenix.Replay{
		`{"since":1723100000123}`:                          at(1723100000123, 25),
		`{"since":0,"limit":1}`:                            at(0, 1),
		`{"since":-5,"limit":0}`:                           at(0, 1),
		`{"since":253402300799999,"limit":1000}`:           at(253402300799999, 25),
		`{"since":1,"limit":-99999999999999999999}`:        at(1, 1),
		`{ "limit" : 7 , "since" : 12 , "since" : 13 }`:    at(13, 7),
		`{"since":1,"limit":99999999999999999999,"x":"y"}`: at(1, 25),
	} {
		got, err := phoenix.ParseReplay(json.RawMessage(raw))
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v %s", raw, err, diff)
		}
	}
	for _, raw := range []string{`{}`, `[]`, `{"since":"1"}`, `{"since":1.0}`, `{"since":1e3}`, `{"since":253402300800000}`, `{"since":1,"limit":"2"}`, `{"since":1,"limit":2.5}`, `{"since":1,"limit":[]}`} {
		if got, err := phoenix.ParseReplay(json.RawMessage(raw)); !errors.Is(err, phoenix.ErrReplayParams) {
			t.Errorf("%s: %v %v", raw, got, err)
		}
	}
}
