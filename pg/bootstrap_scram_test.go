package pg

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/sluice-dev/sluice"
)

func TestScramVerifier(t *testing.T) {
	t.Parallel()
	v, err := scramVerifier("postgres")
	if err != nil {
		t.Fatal(err)
	}
	if !verifyScram(v, "postgres") || verifyScram(v, "Postgres") || verifyScram(v, "") {
		t.Error("the verifier does not tell passwords apart")
	}
	for _, bad := range []string{
		"", "md5d41d8cd98f00b204e9800998ecf8427e", "SCRAM-SHA-256$", "SCRAM-SHA-256$4096", "SCRAM-SHA-256$4096:AAAA",
		"SCRAM-SHA-256$x:AAAA$a:b", "SCRAM-SHA-256$-1:AAAA$a:b", "SCRAM-SHA-256$99999999999:AAAA$a:b", "SCRAM-SHA-256$4096:?$a:b", "SCRAM-SHA-256$1:AAAA$a:b",
	} {
		if verifyScram(bad, "postgres") {
			t.Errorf("%q is a verifier of postgres", bad)
		}
	}
	for _, bad := range []sluice.Secret{"a\x00b", "pässword", "tab\t"} {
		if _, err := scramVerifier(bad); !errors.Is(err, sluice.ErrInvalid) || strings.Contains(err.Error(), string(bad)) {
			t.Errorf("%q: %v", string(bad), err)
		}
	}
}

func FuzzVerifyScram(f *testing.F) {
	v, _ := scramVerifierWith("postgres", []byte("salt"), 1)
	f.Add(v, "postgres")
	f.Add("SCRAM-SHA-256$4096:AAAA$a:b", "")
	f.Fuzz(func(t *testing.T, verifier, password string) {
		if n, _, err := parseScram(verifier); err == nil && n > 10000 {
			t.Skip("slow on purpose")
		}
		if verifyScram(verifier, sluice.Secret(password)) {
			if again, _, err := parseScram(verifier); err != nil || again < 1 {
				t.Errorf("%q accepted", verifier)
			}
		}
	})
}

func TestQuoteLiteral(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"": "''", "a": "'a'", "it's": "'it''s'", `a\b`: `E'a\\b'`, `'\`: `E'''\\'`} {
		if got := quoteLiteral(in); got != want {
			t.Errorf("quoteLiteral(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestLoadMigrations(t *testing.T) {
	t.Parallel()
	for set, files := range map[string]fs.FS{"bootstrap": bootstrapFiles, "migrations": migrationFiles} {
		ms, err := loadMigrations(set, files)
		if err != nil || len(ms.files) == 0 {
			t.Errorf("%s: %d files, %v", set, len(ms.files), err)
		}
	}
	file := func(names ...string) fstest.MapFS {
		m := fstest.MapFS{}
		for _, n := range names {
			m["s/"+n] = &fstest.MapFile{Data: []byte("select 1")}
		}
		return m
	}
	for _, bad := range [][]string{{"0002_a.sql"}, {"0001_a.sql", "0003_b.sql"}, {"0001_a.sql", "0001_b.sql"}, {"1_a.sql"}, {"0001.sql"}, {"abcd_a.sql"}, {"-001_a.sql"}} {
		if _, err := loadMigrations("s", file(bad...)); err == nil {
			t.Errorf("%v was accepted", bad)
		}
	}
	ms, err := loadMigrations("s", file("0001_a.sql", "0002_b_c.sql"))
	if err != nil || ms.files[1].name != "b_c" || ms.files[1].version != 2 || len(ms.files[1].checksum) != 64 {
		t.Errorf("%+v %v", ms, err)
	}
}
