package main

import (
	"cmp"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"text/template"

	"github.com/spf13/cobra"

	"github.com/sluice-dev/sluice/doctor"
)

// cspFrameworks are the names that --for takes; each has a template.
var cspFrameworks = []string{"next", "nginx", "caddy", "vite", "express", "header", "meta"}

//go:embed csp/*.tmpl
var cspTemplates embed.FS

func newCSP(stdout, stderr io.Writer) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "csp [URL]",
		Short: "Print the Content-Security-Policy that a page needs, or check one",
		Long: `Prints the directive that lets a page under a Content-Security-Policy talk to the
project: its origin for REST and Auth, and the same with ws or wss for the socket.
An http source never covers a socket, in any browser. Without URL it is the stack
of this folder, else http://127.0.0.1:54321.

  sluice csp
  sluice csp https://REF.supabase.co

--for prints a whole policy to start from, as a file of a framework or server:
next, nginx, caddy, vite, express, header for the plain header line, or meta for a
tag in the page. A loopback URL gives a policy for development, any other one for
production. --report-only makes one that browsers report on and do not enforce.

  sluice csp --for next https://REF.supabase.co > proxy.ts
  sluice csp --for nginx https://REF.supabase.co

--check loads a page as a browser does and says whether its policies, in headers
and meta tags, let it reach the project and its socket: in Chromium and Firefox,
in Safari, and in Safari before 15.4.

  sluice csp --check http://localhost:3000/chat
  sluice csp --check https://app.example.com https://REF.supabase.co

--json prints the sources, or what --check finds in the doctor's form.

The exit code of --check is 0 when the page may connect, 1 when it may not or
cannot be loaded, 2 for a mistake in the command.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			u, err := cspProject(cmd, args)
			if err != nil {
				return usage(stderr, err)
			}
			page, framework := flag(cmd, "check"), flag(cmd, "for")
			reportOnly, _ := cmd.Flags().GetBool("report-only")
			asJSON, _ := cmd.Flags().GetBool("json")
			sources := append([]string{"'self'"}, doctor.ConnectSources(u)...)
			switch {
			case page != "" && framework != "":
				err = errors.New("--check looks at a page and --for prints a policy: give one of them")
			case framework != "" && asJSON:
				err = errors.New("--for prints a policy in the form of what takes it, and not as JSON")
			case reportOnly && (framework == "" || framework == "meta"):
				err = errors.New("--report-only goes with --for, and with a header alone: browsers take no such tag")
			case page != "":
				err = checkCSP(cmd.Context(), u, page, stdout, asJSON)
			case framework != "":
				err = writeCSP(stdout, framework, u, reportOnly)
			case asJSON:
				err = json.NewEncoder(stdout).Encode(map[string][]string{"connect-src": sources})
			default:
				fmt.Fprintf(stdout, "connect-src %s\n", strings.Join(sources, " "))
			}
			var code exitCode
			if err == nil || errors.As(err, &code) {
				return err
			}
			return usage(stderr, err)
		},
	}
	cmd.Flags().String("for", "", "print a whole policy for "+strings.Join(cspFrameworks, ", "))
	cmd.Flags().Bool("report-only", false, "with --for, a policy that is reported on and not enforced")
	cmd.Flags().Bool("json", false, "print JSON")
	cmd.Flags().String("check", "", "check the policy of the page at this URL")
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(stderr, err) })
	return cmd
}

// cspProject is the project that the page talks to.
func cspProject(cmd *cobra.Command, args []string) (*url.URL, error) {
	if len(args) > 1 {
		return nil, errors.New("csp takes one URL")
	}
	raw := cmp.Or(strings.Join(args, ""), stackVars(flag(cmd, "workdir"))["api.url"], "http://127.0.0.1:54321")
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.ContainsAny(u.Host, " ;,'\"`\\${}") {
		return nil, errors.New("the project URL must have the form http://127.0.0.1:54321 or https://REF.supabase.co")
	}
	return u, nil
}

// checkCSP prints what the doctor says to a page.
func checkCSP(ctx context.Context, project *url.URL, page string, stdout io.Writer, asJSON bool) error {
	report, err := doctor.CheckPage(ctx, doctor.Config{URL: project.String(), Page: page})
	if err != nil {
		return err
	}
	blocked := slices.ContainsFunc(report.Findings, func(f doctor.Finding) bool { return f.Status == doctor.Fail || f.Code == doctor.CodePage })
	if asJSON {
		if err := writeJSON(stdout, !blocked, report); err != nil {
			return err
		}
	} else {
		printPage(stdout, report)
	}
	if blocked {
		return exitCode(1)
	}
	return nil
}

func printPage(stdout io.Writer, report *doctor.Report) {
	for i := range report.Findings {
		f := &report.Findings[i]
		if f.Hop != doctor.HopPage && f.Status == doctor.OK {
			continue
		}
		fmt.Fprintf(stdout, "%-4s  %s\n", f.Status, f.Text)
		for _, line := range []struct{ label, text string }{{"evidence", f.Evidence}, {"remedy", f.Remedy}} {
			if line.text != "" {
				fmt.Fprintf(stdout, "      %-8s  %s\n", line.label, line.text)
			}
		}
	}
}

// writeCSP prints a whole policy in the form of a framework.
func writeCSP(w io.Writer, framework string, project *url.URL, reportOnly bool) error {
	if !slices.Contains(cspFrameworks, framework) {
		return fmt.Errorf("--for %q: the frameworks are %s", framework, strings.Join(cspFrameworks, ", "))
	}
	addr, err := netip.ParseAddr(project.Hostname())
	development := project.Hostname() == "localhost" || err == nil && addr.IsLoopback()
	if !development && project.Scheme == "http" {
		return errors.New("a page in production is served by https, and browsers block ws:// from there to another machine: give the project's https URL")
	}
	origins := []string{project.Scheme + "://" + project.Host}
	sources := doctor.ConnectSources(project)
	for _, s := range sources {
		if strings.HasPrefix(s, "http") && !slices.Contains(origins, s) {
			origins = append(origins, s)
		}
	}
	t, err := template.ParseFS(cspTemplates, "csp/"+framework+".tmpl")
	if err != nil {
		return err
	}
	var text strings.Builder
	err = t.Execute(&text, cspPolicy{
		Connect: "connect-src 'self' " + strings.Join(sources, " "),
		Images:  "img-src 'self' blob: data: " + strings.Join(origins, " "),
		Dev:     development,
	})
	if err != nil {
		return err
	}
	policy := text.String()
	if reportOnly {
		const header = "Content-Security-Policy"
		policy = strings.ReplaceAll(policy, header, header+"-Report-Only")
	}
	_, err = io.WriteString(w, policy)
	return err
}

// cspPolicy is what the templates take.
type cspPolicy struct {
	Connect, Images string // directives
	Dev             bool
}

// Directives are those of a policy without nonces.
func (p cspPolicy) Directives() []string {
	scripts := "script-src 'self'"
	if p.Dev {
		scripts += " 'unsafe-inline' 'unsafe-eval'" // what dev servers put into the page
	}
	return append([]string{"default-src 'self'", scripts}, p.Others()...)
}

// Others are the directives behind those of scripts. The last one is for headers
// alone.
func (p cspPolicy) Others() []string {
	return []string{
		"style-src 'self' 'unsafe-inline'", p.Images, p.Connect, "worker-src 'self' blob:",
		"object-src 'none'", "base-uri 'self'", "form-action 'self'", "frame-ancestors 'none'",
	}
}

// Line is the policy on one line.
func (p cspPolicy) Line() string { return strings.Join(p.Directives(), "; ") }

// Meta is the policy of a tag in the page.
func (p cspPolicy) Meta() string {
	all := p.Directives()
	return strings.Join(all[:len(all)-1], "; ")
}
