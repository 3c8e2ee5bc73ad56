package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-dev/sluice/realtime"
)

func TestSetLimits(t *testing.T) {
	t.Parallel()
	lookup := func(env map[string]string) func(string) (string, bool) {
		return func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	}
	off := realtime.Config{
		MaxUsers: realtime.Unlimited, MaxJoinsPerSecond: realtime.Unlimited,
		MaxEventsPerSecond: realtime.Unlimited, MaxPresencePerSecond: realtime.Unlimited,
	}
	var got realtime.Config
	if err := setLimits(&got, lookup(map[string]string{"TENANT_MAX_CONCURRENT_USERS": ""})); err != nil {
		t.Error(err)
	}
	if d := cmp.Diff(off, got); d != "" {
		t.Errorf("nothing set (-want +got):\n%s", d)
	}

	got = realtime.Config{}
	err := setLimits(&got, lookup(map[string]string{
		"TENANT_MAX_CONCURRENT_USERS": "200", "TENANT_MAX_JOINS_PER_SECOND": "-1", "TENANT_MAX_EVENTS_PER_SECOND": "0",
		"CLIENT_PRESENCE_MAX_CALLS": "7", "CLIENT_PRESENCE_WINDOW_MS": "1000", "TENANT_MAX_CHANNELS_PER_CLIENT": "3",
		"NO_CHANNEL_TIMEOUT_IN_MS": "2000", "SLUICE_REALTIME_TOKEN_EXPIRY": "close",
		"SLUICE_REALTIME_PRIVATE_ONLY": "true", "SLUICE_REALTIME_COMPRESSION": "1",
	}))
	want := realtime.Config{
		MaxUsers: 200, MaxJoinsPerSecond: realtime.Unlimited, MaxEventsPerSecond: realtime.Nothing,
		MaxPresencePerSecond: realtime.Unlimited, MaxPresenceCalls: 7, PresenceWindow: time.Second, MaxChannels: 3,
		NoChannelTimeout: 2 * time.Second, TokenExpiry: realtime.ExpiryClose, PrivateOnly: true, Compression: true,
	}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}

	err = setLimits(&got, lookup(map[string]string{
		"TENANT_MAX_CONCURRENT_USERS": "many", "CLIENT_PRESENCE_MAX_CALLS": "-2",
		"SLUICE_REALTIME_TOKEN_EXPIRY": "later", "SLUICE_REALTIME_COMPRESSION": "a bit",
	}))
	for _, name := range []string{"TENANT_MAX_CONCURRENT_USERS", "CLIENT_PRESENCE_MAX_CALLS", "SLUICE_REALTIME_TOKEN_EXPIRY", "SLUICE_REALTIME_COMPRESSION"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("error is %v, want %s named", err, name)
		}
	}
}

// docs/config.md names every variable that setLimits reads.
func TestLimitsAreDocumented(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../docs/config.md")
	if err != nil {
		t.Fatal(err)
	}
	var cfg realtime.Config
	err = setLimits(&cfg, func(name string) (string, bool) {
		if !strings.Contains(string(doc), "`"+name+"`") {
			t.Errorf("docs/config.md lacks %s", name)
		}
		return "", false
	})
	if err != nil {
		t.Error(err)
	}
	_, _ = verifyShare(func(name string) (string, bool) { // it names its variable
		if !strings.Contains(string(doc), "`"+name+"`") {
			t.Errorf("docs/config.md lacks %s", name)
		}
		return "", false
	})
}

func TestVerifyShare(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]float64{"": 0, "0": 0, "0.25": 0.25, "1": 1} {
		if got, err := verifyShare(func(string) (string, bool) { return text, true }); err != nil || got != want {
			t.Errorf("%q: %v %v", text, got, err)
		}
	}
	for _, text := range []string{"x", "-1", "1.1", "NaN", "Inf"} {
		if got, err := verifyShare(func(string) (string, bool) { return text, true }); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestAnonymousLife(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{"": 0, "720h": 720 * time.Hour, "59m": -1, "-1h": -1, "30 days": -1} {
		got, err := anonymousLife(func(string) (string, bool) { return text, text != "" })
		if want < 0 && (err == nil || !strings.Contains(err.Error(), "SLUICE_AUTH_ANONYMOUS_LIFE")) || want >= 0 && (err != nil || got != want) {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
}

func TestBodyMemory(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{"": 0, "50": 50 << 20, "1000": 1000 << 20, "49": -1, "-1": -1, "1 GB": -1, "99999999999": -1} {
		got, err := bodyMemory(func(string) (string, bool) { return text, text != "" })
		if want < 0 && (err == nil || !strings.Contains(err.Error(), "SLUICE_REST_BODIES_MB")) || want >= 0 && (err != nil || got != want) {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
}

func TestAllowedOriginsConfig(t *testing.T) {
	for text, want := range map[string]string{
		"": "", " , ": "", "https://app.example.com": "https://app.example.com",
		"https://app.example.com, http://localhost:3000 ,": "https://app.example.com http://localhost:3000", "http://[::1]:3000": "http://[::1]:3000",
		"*": "?", "app.example.com": "?", "https://app.example.com/": "?", "https://u@app.example.com": "?", "https://a,b": "?", "null": "?", "https://": "?",
	} {
		got, err := allowedOrigins(func(string) (string, bool) { return text, true })
		if want == "?" && (err == nil || !strings.Contains(err.Error(), "SLUICE_ALLOWED_ORIGINS")) || want != "?" && (err != nil || strings.Join(got, " ") != want) {
			t.Errorf("%q: %q %v", text, got, err)
		}
	}
}
