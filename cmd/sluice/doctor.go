package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/doctor"
	"github.com/sluice-dev/sluice/token"
)

// exitUsage is the exit code of doctor and csp for mistakes of the command line;
// 1 says that something was found.
const exitUsage exitCode = 2

// doctorSecrets are flags that hold secrets. Each can come from the environment
// instead, where other users of the machine do not see it.
var doctorSecrets = []struct{ flag, env, usage string }{
	{"key", "SLUICE_DOCTOR_KEY", "the API key that the app gives to createClient"},
	{"legacy-key", "SLUICE_DOCTOR_LEGACY_KEY", "the anon JWT of the same project, to compare with"},
	{"secret-key", "SLUICE_DOCTOR_SECRET_KEY", "a Sluice's secret key, to ask the server for its own view"},
	{"jwt-secret", "SLUICE_DOCTOR_JWT_SECRET", "the project's JWT secret, to check the key's signature"},
	{"password", "SLUICE_DOCTOR_PASSWORD", "the user's password"},
	{"token", "SLUICE_DOCTOR_TOKEN", "a user's access token, in place of --email and --password"},
	{"db-url", "SLUICE_DOCTOR_DB_URL", "the database, read in one READ ONLY transaction; written to with --fix alone"},
}

func newDoctor(stdout, stderr io.Writer) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor [URL]",
		Short: "Find out why realtime fails, on any Supabase",
		Long: `Goes the way of a client's messages, hop by hop, and says which one fails, with
evidence and the fix. Works with Sluice, the Supabase CLI's stack, self-hosted
and hosted projects. Without URL it visits the stack of this folder, else
http://127.0.0.1:54321.

  sluice doctor
  sluice doctor https://REF.supabase.co --key sb_publishable_…
  sluice doctor --email alice@example.com --table messages --page http://localhost:3000/chat

It only reads. A row is written only with --write-probe, and deleted again. What
SQL can mend without changing who may see what (a table that is missing in the
publication, a replica identity) is shown as SQL; --fix runs it after asking, all
or nothing, and visits again. Policies and grants are never changed.

  sluice doctor --table messages --fix
  sluice doctor https://REF.supabase.co --table messages --fix --yes   (_DB_URL set)

Secrets are redacted in the output; the environment is a better place for them
than the command line: SLUICE_DOCTOR_KEY, _LEGACY_KEY, _SECRET_KEY, _JWT_SECRET,
_PASSWORD, _TOKEN, _DB_URL.

The exit code is 0 when nothing fails, 1 when something does, 2 for a mistake in
the command.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			err := runDoctor(cmd, args, stdout, stderr)
			var code exitCode
			if err == nil || errors.As(err, &code) {
				return err
			}
			return usage(stderr, err)
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(stderr, err) })
	f := cmd.Flags()
	for _, s := range doctorSecrets {
		f.String(s.flag, "", s.usage+"; or "+s.env)
	}
	f.String("email", "", "sign this user in, with --password")
	f.StringSlice("table", nil, "subscribe to this table, as schema.table or table; may be repeated")
	f.String("private-topic", "", "join this private channel of the app")
	f.String("write-probe", "", "insert this row, a JSON object, into the table, wait for its change and delete it")
	f.String("page", "", "the app's page: its Content-Security-Policy, cookies and address")
	f.String("project", "", "the app's folder: .env files and lock file")
	f.String("vsn", "2.0.0", "the protocol version that the app's client asks for")
	f.Duration("timeout", 10*time.Second, "bound of each wait for the network")
	f.Duration("total", time.Minute, "bound of the whole visit")
	f.StringP("output", "o", "pretty", "format: pretty or json")
	f.Bool("json", false, "the same as -o json")
	f.Bool("fix", false, "run the SQL that mends, after asking; on this folder's stack, or with --db-url")
	f.Bool("yes", false, "with --fix, do not ask")
	return cmd
}

// usage prints a mistake of the command line.
func usage(stderr io.Writer, err error) error {
	fmt.Fprintf(stderr, "sluice: %v\n", err)
	return exitUsage
}

func runDoctor(cmd *cobra.Command, args []string, stdout, stderr io.Writer) error {
	format := flag(cmd, "output")
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
		format = "json"
	}
	if format != "pretty" && format != "json" {
		return fmt.Errorf("-o %q: the formats are pretty and json", format)
	}
	cfg, err := doctorConfig(cmd, args)
	if err != nil {
		return err
	}
	mend, _ := cmd.Flags().GetBool("fix")
	yes, _ := cmd.Flags().GetBool("yes")
	switch {
	case yes && !mend:
		return errors.New("--yes answers --fix, which is not given")
	case mend && cfg.DatabaseURL == "":
		return errors.New("--fix needs the database: --db-url or SLUICE_DOCTOR_DB_URL, or a stack that runs in this folder")
	}
	show := func(r *doctor.Report) error {
		if format == "json" {
			return writeJSON(stdout, r.First() == nil, r)
		}
		printReport(stdout, r, isTerminal(stdout))
		if fixes := r.Fixes(); len(fixes) > 0 && !mend {
			printFixes(stdout, "SQL that mends in the database (sluice doctor --fix runs it after asking):", fixes)
		}
		return nil
	}
	report, err := visitAll(cmd.Context(), cfg)
	if err != nil {
		return err
	}
	if fixes := report.Fixes(); mend && len(fixes) > 0 {
		if format == "pretty" {
			_ = show(report)
		}
		if !mendAfterAsking(cmd, cfg.DatabaseURL, fixes, yes, stderr) {
			if format == "json" { // one document, about how it ends
				_ = show(report)
			}
			return exitCode(1)
		}
		if report, err = visitAll(cmd.Context(), cfg); err != nil {
			return err
		}
	}
	if err := show(report); err != nil {
		return err
	}
	if report.First() != nil {
		return exitCode(1)
	}
	return nil
}

// visitAll is the doctor's visit, which Ctrl-C ends.
func visitAll(ctx context.Context, cfg doctor.Config) (*doctor.Report, error) {
	report, err := doctor.Check(ctx, cfg)
	if err == nil && ctx.Err() != nil {
		return nil, exitCode(1)
	}
	return report, err
}

func printFixes(w io.Writer, title string, fixes []string) {
	fmt.Fprintf(w, "\n%s\n", title)
	for _, sql := range fixes {
		fmt.Fprintf(w, "  %s\n", sql)
	}
}

// mendAfterAsking shows the statements, asks, and runs them. All it has to say
// goes to standard error.
func mendAfterAsking(cmd *cobra.Command, url sluice.Secret, fixes []string, yes bool, stderr io.Writer) bool {
	printFixes(stderr, "To be run in the database, all or nothing:", fixes)
	if !yes {
		if !isCharDevice(cmd.InOrStdin()) {
			fmt.Fprintln(stderr, "sluice: nothing was changed: there is no terminal to ask on; add --yes to run it")
			return false
		}
		fmt.Fprint(stderr, "Run it? [y/N] ")
		if !agreed(cmd.Context(), cmd.InOrStdin()) {
			fmt.Fprintln(stderr, "Nothing was changed.")
			return false
		}
	}
	if err := doctor.Mend(cmd.Context(), url, fixes); err != nil {
		fmt.Fprintf(stderr, "sluice: %v\n", err)
		return false
	}
	fmt.Fprintln(stderr, "Done. Visiting again.")
	return true
}

// agreed reads a line. Nobody waits for the reader after Ctrl-C: the process
// ends then.
func agreed(ctx context.Context, in io.Reader) bool {
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(in).ReadString('\n') // no line is no
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case a := <-answer:
		return a == "y" || a == "yes"
	case <-ctx.Done():
		return false
	}
}

// doctorConfig reads flags and environment, and takes what is missing from the
// stack of this folder.
func doctorConfig(cmd *cobra.Command, args []string) (doctor.Config, error) {
	if len(args) > 1 {
		return doctor.Config{}, errors.New("doctor takes one URL")
	}
	secrets := map[string]sluice.Secret{}
	for _, s := range doctorSecrets {
		secrets[s.flag] = sluice.Secret(cmp.Or(flag(cmd, s.flag), os.Getenv(s.env)))
	}
	timeout, _ := cmd.Flags().GetDuration("timeout")
	total, _ := cmd.Flags().GetDuration("total")
	tables, _ := cmd.Flags().GetStringSlice("table")
	cfg := doctor.Config{
		Key: secrets["key"], LegacyKey: secrets["legacy-key"], JWTSecret: secrets["jwt-secret"], VSN: flag(cmd, "vsn"),
		Email: flag(cmd, "email"), Password: secrets["password"], Token: secrets["token"],
		Tables: tables, PrivateTopic: flag(cmd, "private-topic"), DatabaseURL: secrets["db-url"],
		SecretKey: secrets["secret-key"], Page: flag(cmd, "page"), Project: flag(cmd, "project"), Timeout: timeout, Total: total,
	}
	if cfg.Email == "" && flag(cmd, "password") == "" {
		cfg.Password = "" // a variable that stays set is no mistake
	}
	if row := flag(cmd, "write-probe"); row != "" {
		cfg.WriteProbe = json.RawMessage(row)
	}
	if len(args) == 1 {
		cfg.URL = args[0]
	}
	mend, _ := cmd.Flags().GetBool("fix")
	return cfg, fillFromStack(&cfg, flag(cmd, "workdir"), mend)
}

// fillFromStack completes cfg with the addresses and keys of the stack that runs
// in workdir, when that is the one to visit, or with the public development key.
// Its database is asked about tables that are named, and where it is to be mended.
func fillFromStack(cfg *doctor.Config, workdir string, mend bool) error {
	vars := stackVars(workdir)
	cfg.URL = cmp.Or(cfg.URL, vars["api.url"], "http://127.0.0.1:54321")
	if cfg.URL == vars["api.url"] {
		cfg.Key = cmp.Or(cfg.Key, sluice.Secret(vars["auth.publishable_key"]))
		cfg.LegacyKey = cmp.Or(cfg.LegacyKey, sluice.Secret(vars["auth.anon_key"]))
		cfg.SecretKey = cmp.Or(cfg.SecretKey, sluice.Secret(vars["auth.secret_key"]))
		if len(cfg.Tables) > 0 || mend {
			cfg.DatabaseURL = cmp.Or(cfg.DatabaseURL, sluice.Secret(vars["db.url"]))
		}
	}
	if cfg.Key != "" {
		return nil
	}
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Host == "" {
		return nil // doctor.Check says what is wrong with it
	}
	if u.Hostname() == "localhost" || u.Hostname() == "127.0.0.1" {
		cfg.Key = token.DevPublishableKey
		return nil
	}
	return errors.New("an API key is needed: --key or SLUICE_DOCTOR_KEY, the one that the app gives to createClient")
}

// stackVars reads what a stack in workdir has written for `status`. Nothing is
// made: the doctor may look at any folder.
func stackVars(workdir string) map[string]string {
	f := folder{workdir: workdir, dir: filepath.Join(workdir, ".sluice")}
	vars := map[string]string{}
	s, err := f.readState()
	if err != nil {
		return vars // no stack here
	}
	for _, v := range s.Vars {
		vars[v.ID] = v.Value
	}
	return vars
}

// writeJSON prints a report for a script.
func writeJSON(w io.Writer, ok bool, r *doctor.Report) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(struct {
		OK bool `json:"ok"`
		*doctor.Report
	}{ok, r})
}

// isTerminal reports whether colours are wanted: a terminal, and no NO_COLOR
// (no-color.org).
func isTerminal(w io.Writer) bool {
	return os.Getenv("NO_COLOR") == "" && isCharDevice(w)
}

var statusColours = map[doctor.Status]string{doctor.OK: "32", doctor.Skip: "2", doctor.Warn: "33", doctor.Fail: "31"}

// printReport prints a line for each finding in the order of the hops, then the
// first that fails with all that is known of it, then the warnings' remedies.
func printReport(w io.Writer, r *doctor.Report, colour bool) {
	paint := func(s doctor.Status, text string) string {
		if !colour {
			return text
		}
		return "\x1b[" + statusColours[s] + "m" + text + "\x1b[0m"
	}
	fmt.Fprintf(w, "sluice doctor %s\n\n", r.URL)
	last := doctor.Hop("")
	for _, f := range r.Findings {
		hop := string(f.Hop)
		if f.Hop == last {
			hop = ""
		}
		last = f.Hop
		fmt.Fprintf(w, "  %s  %-15s  %s\n", paint(f.Status, fmt.Sprintf("%-4s", f.Status)), hop, f.Text)
	}
	first := r.First()
	if first == nil {
		fmt.Fprintln(w, "\nNothing fails.")
	} else {
		fmt.Fprintf(w, "\n%s\n", paint(doctor.Fail, "First failing hop: "+string(first.Hop)))
		printFinding(w, first)
	}
	for i := range r.Findings {
		if f := &r.Findings[i]; f.Status == doctor.Warn {
			fmt.Fprintf(w, "\n%s\n", paint(doctor.Warn, "Warning: "+string(f.Hop)))
			printFinding(w, f)
		}
	}
}

func printFinding(w io.Writer, f *doctor.Finding) {
	code := string(f.Code)
	if f.Rule > 0 {
		code = strings.TrimSpace(fmt.Sprintf("%s (rule %d)", code, f.Rule))
	}
	if f.Confidence != "" {
		code += ", " + string(f.Confidence)
	}
	for _, line := range []struct{ label, text string }{
		{"cause", f.Text}, {"evidence", f.Evidence}, {"remedy", f.Remedy}, {"code", code}, {"more", f.Link},
	} {
		if line.text != "" {
			fmt.Fprintf(w, "  %-8s  %s\n", line.label, line.text)
		}
	}
}
