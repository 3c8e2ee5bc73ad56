package main

import (
	"context"
	"log/slog"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// logService is the attribute that names the service of a line.
const logService = "service"

// byService adds the service to each record: the package that logs it, which
// nobody else has to say. It is the source that slog.HandlerOptions.AddSource
// would write, cut down to what a reader looks for.
type byService struct{ slog.Handler }

// Handle adds the attribute.
func (h byService) Handle(ctx context.Context, r slog.Record) error {
	frame, _ := runtime.CallersFrames([]uintptr{r.PC}).Next()
	if s := serviceOf(frame.Function); s != "" {
		r = r.Clone()
		r.AddAttrs(slog.String(logService, s))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs and WithGroup keep the attribute.
func (h byService) WithAttrs(attrs []slog.Attr) slog.Handler {
	return byService{h.Handler.WithAttrs(attrs)}
}

// WithGroup is as WithAttrs.
func (h byService) WithGroup(name string) slog.Handler { return byService{h.Handler.WithGroup(name)} }

// serviceOf returns the top folder of a function's package.
func serviceOf(function string) string {
	if strings.HasPrefix(function, "main.") {
		return "stack"
	}
	path, ours := strings.CutPrefix(function, "github.com/sluice-dev/sluice/")
	if !ours {
		return ""
	}
	if i := strings.IndexAny(path, "/."); i >= 0 {
		path = path[:i]
	}
	if path == "cmd" {
		return "stack" // this package in its own tests
	}
	return path
}

// logEntry is a line of a log.
type logEntry struct {
	record  bool // else only text is set
	time    time.Time
	level   slog.Level
	service string
	text    string
	attrs   []logAttr
}

type logAttr struct{ key, value string }

// parser returns what reads a line and tells whether the view holds it. Lines
// are read in their order: one that continues another shares its fate.
func (v *logView) parser() func(line string) (logEntry, bool) {
	shown := v.plain
	return func(line string) (logEntry, bool) {
		var e logEntry
		if v.postgres {
			e = parsePostgres(line)
			if e.record {
				shown = e.level >= v.level && len(v.codes) == 0
			}
			return e, shown
		}
		e = parseRecord(line)
		if !e.record {
			return e, v.plain
		}
		code := func(a logAttr) bool { return a.key == "code" && slices.Contains(v.codes, a.value) }
		return e, e.level >= v.level &&
			(len(v.packages) == 0 || slices.Contains(v.packages, e.service)) &&
			(len(v.codes) == 0 || slices.ContainsFunc(e.attrs, code))
	}
}

// parseRecord reads a line of slog.TextHandler, or keeps it as text.
func parseRecord(line string) logEntry {
	e := logEntry{record: true}
	for rest := line; rest != ""; rest = strings.TrimPrefix(rest, " ") {
		var key, value string
		var ok bool
		if key, rest, ok = nextWord(rest, "= "); !ok || !strings.HasPrefix(rest, "=") {
			return logEntry{text: line}
		}
		if value, rest, ok = nextWord(rest[1:], " "); !ok {
			return logEntry{text: line}
		}
		var err error
		switch key {
		case slog.TimeKey:
			e.time, err = time.Parse(time.RFC3339Nano, value)
		case slog.LevelKey:
			err = e.level.UnmarshalText([]byte(value))
		case slog.MessageKey:
			e.text = value
		case logService:
			e.service = value
		default:
			e.attrs = append(e.attrs, logAttr{key, value})
		}
		if err != nil {
			return logEntry{text: line}
		}
	}
	if e.time.IsZero() {
		return logEntry{text: line}
	}
	return e
}

// nextWord cuts a word, quoted or up to one of the stops.
func nextWord(s, stops string) (word, rest string, ok bool) {
	if quoted, err := strconv.QuotedPrefix(s); err == nil && s[0] == '"' {
		word, err = strconv.Unquote(quoted)
		return word, s[len(quoted):], err == nil
	}
	i := strings.IndexAny(s, stops)
	if i < 0 {
		i = len(s)
	}
	return s[:i], s[i:], true
}

// postgresLine has the form of devpg's log_line_prefix.
var postgresLine = regexp.MustCompile(`^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+) UTC \[\d+\] (?:\S*@\S* )?([A-Z]+)\d?:\s+(.*)$`)

// postgresLevels are the severities that begin a message. Others, such as DETAIL
// and STATEMENT, continue one.
var postgresLevels = map[string]slog.Level{
	"DEBUG": slog.LevelDebug, "LOG": slog.LevelInfo, "INFO": slog.LevelInfo, "NOTICE": slog.LevelInfo,
	"WARNING": slog.LevelWarn, "ERROR": slog.LevelError, "FATAL": slog.LevelError, "PANIC": slog.LevelError,
}

// parsePostgres reads a line of PostgreSQL's log.
func parsePostgres(line string) logEntry {
	m := postgresLine.FindStringSubmatch(line)
	if m == nil {
		return logEntry{text: line}
	}
	level, begins := postgresLevels[m[2]]
	at, err := time.Parse("2006-01-02 15:04:05.000", m[1])
	if !begins || err != nil {
		return logEntry{text: line}
	}
	return logEntry{record: true, time: at.Local(), level: level, service: "postgres", text: m[3]}
}

// printable keeps a text from steering the terminal.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) && c != '\t' {
			return ' '
		}
		return c
	}, s)
}
