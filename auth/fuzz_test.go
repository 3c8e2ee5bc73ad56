package auth_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/sluice-dev/sluice/auth"
)

func FuzzSignupBody(f *testing.F) {
	for _, seed := range []string{
		`{"email":"a@example.com","password":"x","data":{"a":[1,{"b":null}]},"code_challenge":null}`, `{}`, ``, `null`, `[]`,
		`{"data":{"\u0000":1}}`, `{"data":{"k":"\\u0000"}}`, `{"data":{"k":"\ud800"}}`, `{"data":{"n":1e999}}`, `{"data":null}`,
		`{"data":` + strings.Repeat(`{"a":`, 70) + `1` + strings.Repeat(`}`, 71), "{\"data\":{\"k\":\"\xff\"}}", `{"data":{"a":1,"a":2}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		meta, err := auth.DecodeSignup(text)
		if err != nil || meta == nil {
			return
		}
		// What comes out is an object that PostgreSQL can store.
		var object map[string]any
		if err := json.Unmarshal(meta, &object); err != nil {
			t.Fatalf("metadata is no object: %s", meta)
		}
		if !utf8.Valid(meta) {
			t.Fatalf("metadata is no UTF-8: %q", meta)
		}
		if bytes.Contains(bytes.ReplaceAll(meta, []byte(`\\`), nil), []byte(`\u0000`)) || bytes.Contains(bytes.ReplaceAll(meta, []byte(`\\`), nil), []byte(`\ud8`)) {
			t.Fatalf("metadata holds what cannot be stored: %s", meta)
		}
	})
}

func FuzzEmail(f *testing.F) {
	for _, seed := range []string{"a@b", "A.B+c@Ex-ample.co", "ü@example.com", "a b@c.d", "a@@b.c", "@", "", "a@b.", "a@b\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := auth.EmailOf(s)
		if err != nil {
			return
		}
		if len(got) > 255 || strings.Count(got, "@") != 1 || strings.ContainsAny(got, " \t\r\n\x00\"<>(),:;[\\]") || strings.ToLower(s) != got {
			t.Fatalf("%q becomes %q", s, got)
		}
		for _, c := range got {
			if c > 126 {
				t.Fatalf("%q is not ASCII", got)
			}
		}
		if again, err := auth.EmailOf(got); err != nil || again != got {
			t.Fatalf("%q is not stable: %q, %v", got, again, err)
		}
	})
}

func FuzzPhone(f *testing.F) {
	for _, seed := range []string{"+49 123", "49", "++1", "", "0", "1234567890123456"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := auth.PhoneOf(s)
		if err == nil && (len(got) < 2 || len(got) > 15 || strings.Trim(got, "0123456789") != "" || got[0] == '0') {
			t.Fatalf("%q becomes %q", s, got)
		}
	})
}

func FuzzRefreshToken(f *testing.F) {
	key, id := auth.NewTokenKey(), uuid.MustParse("a11ce000-0000-4000-8000-000000000001")
	f.Add(auth.MakeRefreshToken(key, id, 0))
	f.Add(auth.MakeRefreshToken(key, id, 1<<40))
	f.Add("abcdefghij12")
	f.Add(strings.Repeat("A", 51))
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		word, session, counter, err := auth.RefreshTokenParts(s)
		switch {
		case err != nil:
		case word != "":
			if word != s || len(s) < 12 || len(s) > 50 {
				t.Fatalf("%q is taken as the word %q", s, word)
			}
		case counter < 0:
			t.Fatalf("%q has the counter %d", s, counter)
		case auth.RefreshTokenSignedBy(s, key) && s != auth.MakeRefreshToken(key, session, counter):
			t.Fatalf("%q was made by nobody", s)
		}
	})
}

func FuzzHash(f *testing.F) {
	f.Add("$2a$04$ZhJl87G/JivAXy8waxsUkuxa8FqBbnxlMAaejbU/1.jbzvue0aDmG", "x")
	f.Add("$argon2id$v=19$m=8,t=1,p=1$c2FsdA$aGFzaA", "x")
	f.Add("$fbscrypt$v=1,n=2,r=1,p=1,ss=Bw==,sk=a2V5$c2FsdA==$aGFz", "x")
	f.Fuzz(func(t *testing.T, stored, password string) {
		if len(stored) > 300 || strings.HasPrefix(stored, "$2") {
			return // bcrypt's own reader; its cost is what takes time
		}
		for _, slow := range []string{"m=", "n="} {
			if i := strings.Index(stored, slow); i >= 0 && len(stored) > i+4 && strings.Trim(stored[i+2:i+5], "0123456789") == "" {
				return
			}
		}
		_, _ = auth.CheckHash(stored, password) // does not panic
	})
}

// spec: auth-sec:1
func TestRefreshTokenFormat(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for i := range 1000 {
		key := auth.NewTokenKey()
		id := uuid.New()
		tok := auth.MakeRefreshToken(key, id, int64(i)*997)
		word, session, counter, err := auth.RefreshTokenParts(tok)
		if err != nil || word != "" || session != id || counter != int64(i)*997 || len(tok) < 51 {
			t.Fatalf("%q: %q %s %d %v", tok, word, session, counter, err)
		}
		if seen[key] || !auth.RefreshTokenSignedBy(tok, key) || auth.RefreshTokenSignedBy(tok, auth.NewTokenKey()) {
			t.Fatal("the key does not decide")
		}
		seen[key] = true
		word = auth.NewTokenWord()
		if _, _, _, err := auth.RefreshTokenParts(word); err != nil || len(word) != 12 || seen[word] {
			t.Fatalf("word %q: %v", word, err)
		}
		seen[word] = true
	}
}

func FuzzAPIVersion(f *testing.F) {
	for _, seed := range []string{"", "2024-01-01", "2023-12-31", "9999-99-99", "2024-1-1", "２０２４"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if auth.Wants2024(s) && (len(s) != 10 || s < "2024-01-01" || strings.Trim(s, "0123456789-") != "") {
			t.Fatalf("%q is taken", s)
		}
	})
}
