package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// logServices are the names that --service takes and the packages whose lines
// they stand for. PostgreSQL has a log of its own.
var logServices = map[string][]string{
	"gateway":  {"gateway"},
	"auth":     {"auth"},
	"rest":     {"rest", "schema"},
	"realtime": {"realtime", "changes", "policy", "wal", "cluster"},
	"changes":  {"changes", "policy"},
	"wal":      {"wal"},
	"database": {"pg", "devpg"},
	"stack":    {"stack"},
	"postgres": nil,
}

func newLogs(stdout io.Writer) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "logs",
		Short: "Show the stack's log, and follow it",
		Long: `Shows the last lines of the log that the stack of this folder writes, also when it
has ended: requests, refusals with their code, subscriptions that can receive
nothing, and what the services do. Keys and tokens are never in it.

  sluice logs -f                         go on as lines come, until Ctrl-C
  sluice logs --level warn               warnings and errors
  sluice logs --service realtime -n 500  Realtime with its stream of changes
  sluice logs --code InvalidAPIKey       one refusal
  sluice logs --service postgres         PostgreSQL's own log
  sluice logs -o json | jq .code         for a script

Services are gateway, auth, rest, realtime (with changes and wal, which are
services too), database, stack and postgres. Lines that are no records, such as
the progress of a start, are shown when nothing is filtered.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := openFolder(flag(cmd, "workdir"))
			if err != nil {
				return err
			}
			view, follow, lines, err := logFlags(cmd, stdout)
			if err != nil {
				return err
			}
			path := f.logFile()
			if view.postgres {
				path = f.postgresLog()
			}
			return showLog(cmd.Context(), path, view, lines, follow, stdout)
		},
	}
	cmd.Flags().BoolP("follow", "f", false, "go on as lines are written")
	cmd.Flags().IntP("lines", "n", 100, "how many of the last lines that fit; -1 for all")
	cmd.Flags().StringSlice("service", nil, "lines of this service; may be repeated")
	cmd.Flags().String("level", "debug", "lines of this level or above: debug, info, warn, error")
	cmd.Flags().StringSlice("code", nil, "lines with this code; may be repeated")
	cmd.Flags().Bool("no-color", false, "no colours, which only a terminal gets anyway (or NO_COLOR)")
	cmd.Flags().StringP("output", "o", "pretty", "format: pretty or json")
	return cmd
}

// logView is which lines of a log are shown, and how.
type logView struct {
	level    slog.Level
	packages []string // empty: all
	codes    []string // empty: all
	plain    bool     // nothing is filtered
	postgres bool     // the log is PostgreSQL's
	json     bool
	colour   bool
}

func logFlags(cmd *cobra.Command, stdout io.Writer) (view *logView, follow bool, lines int, err error) {
	view = &logView{}
	if err := view.level.UnmarshalText([]byte(flag(cmd, "level"))); err != nil {
		return nil, false, 0, fmt.Errorf("--level %q: the levels are debug, info, warn and error", flag(cmd, "level"))
	}
	switch format := flag(cmd, "output"); format {
	case "pretty", "json":
		view.json = format == "json"
	default:
		return nil, false, 0, fmt.Errorf("-o %q: the formats are pretty and json", format)
	}
	services, _ := cmd.Flags().GetStringSlice("service")
	for _, s := range services {
		packages, known := logServices[s]
		if !known {
			return nil, false, 0, fmt.Errorf("--service %q: the services are gateway, auth, rest, realtime, changes, wal, database, stack and postgres", s)
		}
		view.packages = append(view.packages, packages...)
	}
	if view.postgres = slices.Contains(services, "postgres"); view.postgres && len(services) > 1 {
		return nil, false, 0, errors.New("--service postgres: PostgreSQL has a log of its own; ask for it alone")
	}
	view.codes, _ = cmd.Flags().GetStringSlice("code")
	view.plain = len(services) == 0 && len(view.codes) == 0 && view.level <= slog.LevelDebug
	noColor, _ := cmd.Flags().GetBool("no-color")
	view.colour = !noColor && isTerminal(stdout)
	follow, _ = cmd.Flags().GetBool("follow")
	lines, _ = cmd.Flags().GetInt("lines")
	return view, follow, lines, nil
}

// logRhythm is how often a log that is followed is looked at.
const logRhythm = 200 * time.Millisecond

// showLog prints the last lines of a log that fit the view, and with follow what
// is written from then on until ctx ends.
func showLog(ctx context.Context, path string, view *logView, lines int, follow bool, w io.Writer) error {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("nothing was started in this folder, so there is no log; start it with: sluice start")
	}
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	defer file.Close()
	log := &tail{file: file}
	parse := view.parser()
	var last []string
	err = log.read(func(line string) {
		if e, fits := parse(line); fits {
			if last = append(last, view.show(e)); lines >= 0 && len(last) > lines {
				last = last[1:]
			}
		}
	})
	if err != nil {
		return err
	}
	for _, text := range last {
		fmt.Fprintln(w, text)
	}
	tick := time.NewTicker(logRhythm)
	defer tick.Stop()
	for follow {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := log.read(func(line string) {
			if e, fits := parse(line); fits {
				fmt.Fprintln(w, view.show(e))
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// tail reads what was added to a file since the last time.
type tail struct {
	file *os.File
	at   int64
	rest string // begin of a line that is being written
}

// read calls fn with each whole line. A file that is shorter than before was
// begun anew, by the next start.
func (t *tail) read(fn func(line string)) error {
	fi, err := t.file.Stat()
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	if fi.Size() < t.at {
		t.at, t.rest = 0, ""
	}
	r := bufio.NewReaderSize(io.NewSectionReader(t.file, t.at, fi.Size()-t.at), 1<<16)
	for {
		part, err := r.ReadString('\n')
		t.at += int64(len(part))
		t.rest += part
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the log: %w", err)
		}
		fn(strings.TrimRight(t.rest, "\r\n"))
		t.rest = ""
	}
}

// show renders a line.
func (v *logView) show(e logEntry) string {
	if v.json {
		fields := map[string]string{"msg": e.text}
		for _, a := range e.attrs {
			fields[a.key] = a.value
		}
		if e.record {
			fields["time"], fields["level"], fields["service"] = e.time.Format(time.RFC3339Nano), e.level.String(), e.service
		}
		text, _ := json.Marshal(fields) // strings alone
		return string(text)
	}
	if !e.record {
		return printable(e.text)
	}
	colour := levelColours[min(max(e.level, slog.LevelDebug), slog.LevelError)]
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %-8s %s", e.time.Format(time.DateTime), v.paint(colour, fmt.Sprintf("%-5s", e.level)), e.service, printable(e.text))
	for _, a := range e.attrs {
		value := a.value
		if value == "" || strings.ContainsAny(value, " \"=") || printable(value) != value {
			value = fmt.Sprintf("%q", value)
		}
		if a.key == "code" {
			value = v.paint(colour, value)
		}
		fmt.Fprintf(&b, " %s=%s", printable(a.key), value)
	}
	return b.String()
}

var levelColours = map[slog.Level]string{slog.LevelDebug: "2", slog.LevelInfo: "32", slog.LevelWarn: "33", slog.LevelError: "31"}

func (v *logView) paint(colour, text string) string {
	if !v.colour {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}
