package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
	"github.com/sluice-dev/sluice/policy"
)

func newExplain(stdout, stderr io.Writer) *cobra.Command {
	cmd := &cobra.Command{Use: "explain", Short: "Say how something is decided", Args: noArgs}
	cmd.AddCommand(newExplainPolicy(stdout, stderr))
	return cmd
}

func newExplainPolicy(stdout, stderr io.Writer) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy TABLE",
		Short: "Print how a table's changes are authorized, and why not for less",
		Long: `Prints, for each role, how the SELECT policies of a table are decided when a row
changes and many listen:

  0 constant   every row or none; nothing is asked
  1 predicate  evaluated in Sluice over the row and the claims; a column that
               must equal a claim is an index
  2 set        one statement for a batch of changes, whatever the number of
               subscribers
  3 user       one check for each distinct token, as that user

A policy in a dearer tier than 1 says what keeps it there. The database is that of
the stack of this folder, or the one of --db-url; it is only read.

  sluice explain policy messages
  sluice explain policy public.messages --role authenticated --sql
  sluice explain policy messages --db-url postgresql://postgres:…@db.example.com:5432/postgres`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage(stderr, errors.New("explain policy takes one table"))
			}
			format := flag(cmd, "output")
			if format != "text" && format != "json" {
				return usage(stderr, errors.New("the output is text or json"))
			}
			roles, _ := cmd.Flags().GetStringSlice("role")
			e, err := explainPolicy(cmd.Context(), cmd, args[0], roles)
			if err != nil {
				return err
			}
			if format == "json" {
				enc := json.NewEncoder(stdout)
				enc.SetEscapeHTML(false)
				enc.SetIndent("", "  ")
				return enc.Encode(e)
			}
			sql, _ := cmd.Flags().GetBool("sql")
			printExplanation(stdout, e, sql)
			return nil
		},
	}
	cmd.Flags().StringSlice("role", []string{"anon", "authenticated"}, "roles to explain")
	cmd.Flags().Bool("sql", false, "print the statements of tier 2")
	cmd.Flags().String("db-url", "", "database to read (SLUICE_DB_URL)")
	cmd.Flags().StringP("output", "o", "text", "text or json")
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(stderr, err) })
	return cmd
}

func explainPolicy(ctx context.Context, cmd *cobra.Command, table string, roles []string) (*policy.Explanation, error) {
	raw := cmp.Or(flag(cmd, "db-url"), os.Getenv("SLUICE_DB_URL"))
	if raw == "" {
		var err error
		if raw, err = stackAdminURL(stackVars(flag(cmd, "workdir"))["db.url"]); err != nil {
			return nil, err
		}
	}
	pool, err := pg.Open(ctx, pg.Config{URL: sluice.Secret(raw), Name: "sluice explain", MaxConns: 1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	return policy.Explain(ctx, pool, table, roles, "public, extensions")
}

// stackAdminURL returns the database of a development stack as its superuser, who
// has the same password there as everybody.
func stackAdminURL(raw string) (string, error) {
	if raw == "" {
		return "", errors.New("no stack runs in this folder: start it with `sluice start`, or name a database with --db-url")
	}
	u, err := url.Parse(raw)
	if err != nil {
		return "", errors.New("the stack's database URL cannot be read")
	}
	password, _ := u.User.Password()
	u.User = url.UserPassword("supabase_admin", password)
	return u.String(), nil
}

func printExplanation(w io.Writer, e *policy.Explanation, sql bool) {
	name := e.Schema + "." + e.Table
	switch {
	case e.Guard == "":
		fmt.Fprintf(w, "%s: row level security is off\n", name)
	case e.Force:
		fmt.Fprintf(w, "%s: row level security is on, for the owner too\n", name)
	default:
		fmt.Fprintf(w, "%s: row level security is on\n", name)
	}
	for _, r := range e.Roles {
		fmt.Fprintf(w, "\nrole %s\n", r.Role)
		printDecision(w, "  ", r.Decision, sql)
		for _, p := range r.Policies {
			kind := "permissive"
			if !p.Permissive {
				kind = "restrictive"
			}
			fmt.Fprintf(w, "\n  policy %q (%s, to %s)\n", p.Name, kind, strings.Join(p.To, ", "))
			fmt.Fprintf(w, "    using   %s\n", strings.Join(strings.Fields(cmp.Or(p.Using, "(no expression: shows nothing)")), " "))
			printDecision(w, "    ", p.Decision, false)
		}
	}
}

func printDecision(w io.Writer, indent string, d policy.Decision, sql bool) {
	fmt.Fprintf(w, "%stier %d  %s: %s\n", indent, d.Tier, d.Tier, d.How)
	if d.Why != "" {
		fmt.Fprintf(w, "%swhy     not cheaper: %s\n", indent, d.Why)
	}
	if len(d.Seen) > 0 {
		fmt.Fprintf(w, "%sclaims  %s\n", indent, strings.Join(d.Seen, "; "))
	}
	if sql && d.SQL != "" {
		fmt.Fprintf(w, "%ssql     %s\n", indent, d.SQL)
	}
}
