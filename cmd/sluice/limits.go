package main

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-dev/sluice/realtime"
)

// setLimits takes Realtime's limits from the environment, under the names that
// the original reads, and the other switches of docs/config.md. What is not set is off where the original bounds a tenant:
// this server has one project, and a quota protects nobody from it. What bounds
// one client keeps the original's default. All mistakes are reported at once.
func setLimits(cfg *realtime.Config, lookup func(string) (string, bool)) error {
	var errs []error
	number := func(name string) (n int, ok bool) {
		text, ok := lookup(name)
		if !ok || text == "" {
			return 0, false
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < -1 {
			errs = append(errs, fmt.Errorf("%s is %q: it must be a number, -1 for no limit", name, text))
			return 0, false
		}
		return n, true
	}
	limit := func(name string, to *realtime.Limit, unset realtime.Limit) {
		switch n, ok := number(name); {
		case !ok:
			*to = unset
		case n == 0:
			*to = realtime.Nothing
		default:
			*to = realtime.Limit(n)
		}
	}
	limit("TENANT_MAX_CONCURRENT_USERS", &cfg.MaxUsers, realtime.Unlimited)
	limit("TENANT_MAX_JOINS_PER_SECOND", &cfg.MaxJoinsPerSecond, realtime.Unlimited)
	limit("TENANT_MAX_EVENTS_PER_SECOND", &cfg.MaxEventsPerSecond, realtime.Unlimited)
	limit("TENANT_MAX_PRESENCE_EVENTS_PER_SECOND", &cfg.MaxPresencePerSecond, realtime.Unlimited)
	limit("CLIENT_PRESENCE_MAX_CALLS", &cfg.MaxPresenceCalls, 0)
	if n, ok := number("CLIENT_PRESENCE_WINDOW_MS"); ok {
		cfg.PresenceWindow = time.Duration(n) * time.Millisecond
	}
	if n, ok := number("TENANT_MAX_CHANNELS_PER_CLIENT"); ok {
		cfg.MaxChannels = n
	}
	if n, ok := number("NO_CHANNEL_TIMEOUT_IN_MS"); ok {
		cfg.NoChannelTimeout = time.Duration(n) * time.Millisecond
	}
	expiry, _ := lookup("SLUICE_REALTIME_TOKEN_EXPIRY")
	switch cfg.TokenExpiry = realtime.TokenExpiry(expiry); cfg.TokenExpiry {
	case "", realtime.ExpiryMute, realtime.ExpiryClose:
	default:
		errs = append(errs, fmt.Errorf("SLUICE_REALTIME_TOKEN_EXPIRY is %q: it must be mute or close", expiry))
	}
	flag := func(name string, to *bool) {
		text, _ := lookup(name)
		if text == "" {
			return
		}
		var err error
		if *to, err = strconv.ParseBool(text); err != nil {
			errs = append(errs, fmt.Errorf("%s is %q: it must be true or false", name, text))
		}
	}
	flag("SLUICE_REALTIME_PRIVATE_ONLY", &cfg.PrivateOnly)
	flag("SLUICE_REALTIME_COMPRESSION", &cfg.Compression)
	return errors.Join(errs...)
}

// verifyShare is the share of changes of which PostgreSQL is asked in addition to
// a compiled policy.
func verifyShare(lookup func(string) (string, bool)) (float64, error) {
	text, _ := lookup("SLUICE_POLICY_VERIFY")
	if text == "" {
		return 0, nil
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || !(v >= 0 && v <= 1) {
		return 0, fmt.Errorf("SLUICE_POLICY_VERIFY is %q: it must be a share from 0 to 1, such as 0.01", text)
	}
	return v, nil
}

// anonymousLife is how long anonymous users who do not come back are kept: for ever,
// unless the environment says so. Users have data that goes with them.
func anonymousLife(lookup func(string) (string, bool)) (time.Duration, error) {
	const name = "SLUICE_AUTH_ANONYMOUS_LIFE"
	text, _ := lookup(name)
	if text == "" {
		return 0, nil
	}
	life, err := time.ParseDuration(text)
	if err != nil || life < time.Hour {
		return 0, fmt.Errorf("%s is %q: it must be a time of an hour or more, such as 720h", name, text)
	}
	return life, nil
}

// allowedOrigins are those whose pages may read answers: any, unless there is a list.
func allowedOrigins(lookup func(string) (string, bool)) ([]string, error) {
	const name = "SLUICE_ALLOWED_ORIGINS"
	text, _ := lookup(name)
	var out []string
	for o := range strings.SplitSeq(text, ",") {
		if o = strings.TrimSpace(o); o == "" {
			continue
		}
		u, err := url.Parse(o)
		if err != nil || u.Scheme == "" || u.Host == "" || !strings.EqualFold(u.Scheme+"://"+u.Host, o) {
			return nil, fmt.Errorf("%s has %q: an origin is a scheme, a host and perhaps a port, such as https://app.example.com", name, o)
		}
		out = append(out, o)
	}
	return out, nil
}

// bodyMemory is how many bytes all request bodies of REST may have at once; 0 is
// rest's default.
func bodyMemory(lookup func(string) (string, bool)) (int64, error) {
	const name, least = "SLUICE_REST_BODIES_MB", 50 // of one body
	text, _ := lookup(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < least {
		return 0, fmt.Errorf("%s is %q: it must be a number of megabytes, at least %d, which one body may have", name, text, least)
	}
	return n << 20, nil
}

// refuseBreached tells whether new passwords are looked up, by the name that the
// original reads.
func refuseBreached(lookup func(string) (string, bool)) (bool, error) {
	const name = "GOTRUE_PASSWORD_HIBP_ENABLED"
	text, _ := lookup(name)
	if text == "" {
		return false, nil
	}
	on, err := strconv.ParseBool(text)
	if err != nil {
		return false, fmt.Errorf("%s is %q: it must be true or false", name, text)
	}
	return on, nil
}
