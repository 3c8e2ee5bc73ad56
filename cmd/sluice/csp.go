package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-dev/sluice/doctor"
)

func newCSP(stdout, stderr io.Writer) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "csp [URL]",
		Short: "Print the connect-src that a page needs for this project",
		Long: `Prints the directive that lets a page under a Content-Security-Policy talk to the
project: its origin for REST and Auth, and the same with ws or wss for the socket.
An http source never covers a socket, in any browser. Without URL it is the stack
of this folder, else http://127.0.0.1:54321.

  sluice csp
  sluice csp https://REF.supabase.co`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usage(stderr, errors.New("csp takes one URL"))
			}
			raw := cmp.Or(strings.Join(args, ""), stackVars(flag(cmd, "workdir"))["api.url"], "http://127.0.0.1:54321")
			u, err := url.Parse(raw)
			if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
				return usage(stderr, errors.New("the project URL must have the form http://127.0.0.1:54321 or https://REF.supabase.co"))
			}
			fmt.Fprintf(stdout, "connect-src 'self' %s\n", strings.Join(doctor.ConnectSources(u), " "))
			return nil
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(stderr, err) })
	return cmd
}
