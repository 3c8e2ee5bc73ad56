package pgoutput_test

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/wal/pgoutput"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func text(s string) sluice.Value { return sluice.Value{Kind: sluice.ValueText, Text: []byte(s)} }

var golden = map[string]struct {
	hex  string
	want pgoutput.Message
}{
	"begin": {
		"42 0000000001a2b3c8 0000000000 0f4240 0000 02ee",
		&pgoutput.Begin{Commit: 0x1a2b3c8, Time: time.Date(2000, 1, 1, 0, 0, 1, 0, time.UTC), XID: 750},
	},
	"commit": {
		"43 00 0000000000000010 0000000000000018 0000000000000001",
		&pgoutput.Commit{LSN: 16, End: 24, Time: time.Date(2000, 1, 1, 0, 0, 0, 1000, time.UTC)},
	},
	"relation": {
		"52 00004001 7075626c696300 7400 64 0002 01 696400 00000017 ffffffff 00 6200 00000019 ffffffff",
		&pgoutput.Relation{OID: 0x4001, Schema: "public", Name: "t", Identity: 'd', Columns: []sluice.Column{
			{Name: "id", Type: 23, Key: true}, {Name: "b", Type: 25},
		}},
	},
	"insert": {
		"49 00004001 4e 0003 74 00000001 37 6e 75",
		&pgoutput.Row{Kind: sluice.ChangeInsert, OID: 0x4001, New: []sluice.Value{text("7"), {Kind: sluice.ValueNull}, {}}},
	},
	"update": {
		"55 00004001 4e 0001 74 00000001 37",
		&pgoutput.Row{Kind: sluice.ChangeUpdate, OID: 0x4001, New: []sluice.Value{text("7")}},
	},
	"update of the key": {
		"55 00004001 4b 0002 74 00000001 36 6e 4e 0002 74 00000001 37 6e",
		&pgoutput.Row{
			Kind: sluice.ChangeUpdate, OID: 0x4001, New: []sluice.Value{text("7"), {Kind: sluice.ValueNull}},
			Old: []sluice.Value{text("6"), {}},
		},
	},
	"delete, full": {
		"44 00004001 4f 0002 74 00000001 36 6e",
		&pgoutput.Row{Kind: sluice.ChangeDelete, OID: 0x4001, Old: []sluice.Value{text("6"), {Kind: sluice.ValueNull}}, OldFull: true},
	},
	"message": {
		"4d 01 0000000000000010 736c7569636500 00000002 7b7d",
		&pgoutput.Logical{Transactional: true, LSN: 16, Prefix: "sluice", Content: []byte("{}")},
	},
	"truncate": {"54 00000001 00 00004001", &pgoutput.Other{Kind: 'T'}},
}

func TestDecode(t *testing.T) {
	t.Parallel()
	for name, tt := range golden {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := unhex(t, tt.hex)
			got, err := pgoutput.Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
			if tt.hex[:2] == "54" {
				return // of no interest beyond its kind
			}
			for n := range b {
				if _, err := pgoutput.Decode(b[:n]); err == nil {
					t.Errorf("no error for the first %d bytes", n)
				}
			}
			if _, err := pgoutput.Decode(append(b, 0)); err == nil {
				t.Error("no error for a byte too many")
			}
		})
	}
	if _, err := pgoutput.Decode(nil); !errors.Is(err, pgoutput.ErrTruncated) {
		t.Errorf("empty: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, tt := range golden {
		f.Add(unhex(f, tt.hex))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := pgoutput.Decode(b)
		if (m == nil) != (err != nil) {
			t.Errorf("message %v, error %v", m, err)
		}
	})
}
