package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/inspect"
)

func newWhy(stdout, stderr io.Writer) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "why",
		Short: "Say why somebody did not get a change",
		Long: `Follows the latest change of a table, or of one row, to a user's sockets: stream,
publication, channel, token, filter, grant, policy, queue. Names the hop that stops
it. The running server is asked, and decides the change once more as it would for
the client; nothing is sent.

  sluice why --table messages --user alice@example.com
  sluice why --table messages --user 5a1c…-…-…  --id 42
  sluice why --table members --key room=1 --key user_id=5a1c…
  sluice why --table messages                        (who has not signed in)

It asks the stack of this folder, or the server at --url with its secret key in
SLUICE_SECRET_KEY.

The exit code is 0 when nothing stops the change, 1 when something does, 2 for a
mistake in the command, an unknown table or user, or a server that cannot be asked.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := whyQuery(cmd, args)
			if err != nil {
				return usage(stderr, err)
			}
			base, key, err := nodeAddress(cmd)
			if err != nil {
				return usage(stderr, err)
			}
			text, err := askNode(cmd.Context(), base, key, "why?"+q.Encode())
			switch {
			case cmd.Context().Err() != nil:
				return err
			case err != nil:
				return usage(stderr, err) // 1 says that something stops the change
			}
			var y inspect.Why
			if err := json.Unmarshal(text, &y); err != nil {
				return fmt.Errorf("read the server's answer: %w", err)
			}
			if flag(cmd, "output") == "json" {
				enc := json.NewEncoder(stdout)
				enc.SetEscapeHTML(false)
				enc.SetIndent("", "  ")
				err = enc.Encode(y)
			} else {
				printWhy(stdout, &y, isTerminal(stdout))
			}
			if err == nil && y.Stopped != "" {
				return exitCode(1)
			}
			return err
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(stderr, err) })
	f := cmd.Flags()
	f.String("table", "", "the table, as schema.table or table (of schema public); required")
	f.String("user", "", "who did not get it: id or mail address; without it, who has not signed in")
	f.String("id", "", "the row's primary key, when that is one column")
	f.StringArray("key", nil, "a column of the row's primary key, as column=value; may be repeated")
	f.String("url", "", "the server to ask, in place of this folder's stack")
	f.StringP("output", "o", "pretty", "format: pretty or json")
	return cmd
}

func whyQuery(cmd *cobra.Command, args []string) (url.Values, error) {
	q := url.Values{"table": {flag(cmd, "table")}, "user": {flag(cmd, "user")}}
	keys, _ := cmd.Flags().GetStringArray("key")
	format := flag(cmd, "output")
	switch {
	case len(args) > 0:
		return nil, fmt.Errorf("why takes no argument: name the table with --table %s", args[0])
	case flag(cmd, "table") == "":
		return nil, errors.New("name the table with --table")
	case format != "pretty" && format != "json":
		return nil, fmt.Errorf("-o %q: the formats are pretty and json", format)
	case cmd.Flags().Changed("id") && len(keys) > 0:
		return nil, errors.New("--id is the key of one column, --key of several: give one of them")
	case cmd.Flags().Changed("id"):
		q.Set("key", flag(cmd, "id"))
	}
	for _, k := range keys {
		column, value, ok := strings.Cut(k, "=")
		if !ok || column == "" {
			return nil, fmt.Errorf("--key %q has the form column=value", k)
		}
		q.Set("key."+column, value)
	}
	return q, nil
}

// nodeAddress returns the server to look into, and its secret key.
func nodeAddress(cmd *cobra.Command) (base string, key sluice.Secret, err error) {
	vars := stackVars(flag(cmd, "workdir"))
	base = cmp.Or(flag(cmd, "url"), vars["api.url"])
	key = sluice.Secret(os.Getenv("SLUICE_SECRET_KEY"))
	if base == vars["api.url"] {
		key = cmp.Or(key, sluice.Secret(vars["auth.secret_key"]))
	}
	switch {
	case base == "":
		return "", "", errors.New("no stack runs in this folder: start it with `sluice start`, or name a server with --url")
	case key == "":
		return "", "", errors.New("the server's secret key is needed in SLUICE_SECRET_KEY")
	}
	return base, key, nil
}

// maxNodeAnswer bounds what a server may answer, in bytes.
const maxNodeAnswer = 16 << 20

// askNode asks a server about itself.
func askNode(ctx context.Context, base string, key sluice.Secret, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(base, "/")+"/sluice/v1/"+path, nil)
	if err != nil {
		return nil, errors.New("the server's URL cannot be read") // the parser's error may quote a password
	}
	req.Header.Set("Apikey", string(key))
	// The key goes to this server and to no other.
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the server: %w", err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxNodeAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the server's answer: %w", err)
	}
	if res.StatusCode == http.StatusOK && res.Header.Get("Content-Type") == "application/json; charset=utf-8" {
		return text, nil
	}
	var body struct{ Message, Hint string }
	switch {
	case res.Header.Get(sluice.HeaderCode) == "":
		return nil, fmt.Errorf("%s is no Sluice that can be asked: it answers %s", base, res.Status)
	case json.Unmarshal(text, &body) != nil || body.Message == "":
		return nil, fmt.Errorf("the server answers %s", res.Status)
	case body.Hint != "" && body.Hint != "See the message.":
		return nil, fmt.Errorf("%s\n%s", body.Message, body.Hint)
	}
	return nil, errors.New(body.Message)
}

func printWhy(w io.Writer, y *inspect.Why, colour bool) {
	who := y.User
	if who == "" {
		who = "who has not signed in"
	}
	fmt.Fprintf(w, "Changes of %s for %s (role %s)\n\n", y.Table, who, y.Role)
	colours := map[inspect.Verdict]string{inspect.Passes: "32", inspect.Stops: "31", inspect.Notes: "33"}
	words := map[inspect.Verdict]string{inspect.Passes: "ok", inspect.Stops: "STOP", inspect.Notes: "note"}
	for _, s := range y.Steps {
		word := fmt.Sprintf("%-4s", words[s.Verdict])
		if colour {
			word = "\x1b[" + colours[s.Verdict] + "m" + word + "\x1b[0m"
		}
		fmt.Fprintf(w, "  %s  %-11s  %s\n", word, s.Hop, s.Text)
		if s.Remedy != "" && s.Verdict != inspect.Passes {
			fmt.Fprintf(w, "  %-17s  → %s\n", "", s.Remedy)
		}
	}
	if y.Stopped == "" {
		fmt.Fprintln(w, "\nNothing stops it.")
	} else {
		fmt.Fprintf(w, "\nIt stops at: %s\n", y.Stopped)
	}
}
