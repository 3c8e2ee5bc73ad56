package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// envVar is one value of `status`: the id that --override-name takes, the name
// that scripts know (spec gateway C.2.1), and the group of the pretty form.
type envVar struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Value string `json:"value"`
	Box   string `json:"box,omitempty"` // empty: not shown in the pretty form
	Label string `json:"label,omitempty"`
}

func newStatus(stdout, stderr io.Writer) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show addresses and keys of the running stack",
		Long: `Shows addresses and keys of the stack that runs in this folder. Machine formats
go to standard output alone, so that they can be redirected or sourced:

  eval "$(sluice status -o env)"
  sluice status -o json | jq -r .PUBLISHABLE_KEY
  sluice status -o env --override-name api.url=NEXT_PUBLIC_SUPABASE_URL > .env.local

The exit code is 1 when nothing runs.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			format, _ := cmd.Flags().GetString("output")
			overrides, _ := cmd.Flags().GetStringArray("override-name")
			if !slices.Contains(formats, format) {
				return fmt.Errorf("-o %q: the formats are %s", format, strings.Join(formats, ", "))
			}
			s, err := runningStack(cmd)
			if err != nil {
				return err
			}
			vars, err := rename(s.Vars, overrides)
			if err != nil {
				return err
			}
			if format == "pretty" {
				fmt.Fprintln(stderr, "Sluice local development setup is running.")
			}
			return writeStatus(stdout, format, vars)
		},
	}
	cmd.Flags().StringP("output", "o", "pretty", "format: "+strings.Join(formats, ", "))
	cmd.Flags().StringArray("override-name", nil, "another name for a value, as ID=NAME (for example api.url=SUPABASE_URL); may be repeated")
	return cmd
}

// runningStack is what the stack that runs in --workdir has written.
func runningStack(cmd *cobra.Command) (*state, error) {
	f, err := openFolder(flag(cmd, "workdir"))
	if err != nil {
		return nil, err
	}
	s, err := f.running()
	if err == nil && s == nil {
		err = errors.New("no stack is running in this folder; start it with: sluice start")
	}
	return s, err
}

// flag returns a string flag that is known to exist.
func flag(cmd *cobra.Command, name string) string {
	v, _ := cmd.Flags().GetString(name)
	if v == "" {
		cmd.InheritedFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name == name {
				v = f.Value.String()
			}
		})
	}
	return v
}

// rename applies --override-name ID=NAME.
func rename(vars []envVar, overrides []string) ([]envVar, error) {
	vars = slices.Clone(vars)
	for _, o := range overrides {
		id, name, ok := strings.Cut(o, "=")
		i := slices.IndexFunc(vars, func(v envVar) bool { return v.ID == id })
		if !ok || name == "" {
			return nil, fmt.Errorf("--override-name %q: write ID=NAME", o)
		}
		if i < 0 {
			return nil, fmt.Errorf("--override-name %q: no value has the id %q; ids are %s", o, id, ids(vars))
		}
		vars[i].Name = name
	}
	return vars, nil
}

func ids(vars []envVar) string {
	out := make([]string, len(vars))
	for i, v := range vars {
		out[i] = v.ID
	}
	return strings.Join(out, ", ")
}

// formats of status -o.
var formats = []string{"pretty", "env", "json", "yaml", "toml"}

// writeStatus prints in one of formats.
func writeStatus(w io.Writer, format string, vars []envVar) error {
	byName := slices.SortedFunc(slices.Values(vars), func(a, b envVar) int { return strings.Compare(a.Name, b.Name) })
	switch format {
	case "env":
		for _, v := range byName {
			fmt.Fprintf(w, "%s=%s\n", v.Name, quoteEnv(v.Value))
		}
	case "yaml":
		for _, v := range byName {
			fmt.Fprintf(w, "%s: %s\n", v.Name, quoteJSON(v.Value))
		}
	case "toml":
		for _, v := range byName {
			fmt.Fprintf(w, "%s = %s\n", v.Name, quoteJSON(v.Value))
		}
	case "json":
		m := map[string]string{}
		for _, v := range vars {
			m[v.Name] = v.Value
		}
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(m)
	default:
		writeBoxes(w, vars)
	}
	return nil
}

// quoteEnv quotes for dotenv files and for POSIX shells alike.
func quoteEnv(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`", "\n", `\n`).Replace(s) + `"`
}

func quoteJSON(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// writeBoxes prints the groups that users of the Supabase CLI know.
func writeBoxes(w io.Writer, vars []envVar) {
	var order []string
	groups := map[string][]envVar{}
	for _, v := range vars {
		if v.Box == "" {
			continue
		}
		if groups[v.Box] == nil {
			order = append(order, v.Box)
		}
		groups[v.Box] = append(groups[v.Box], v)
	}
	for _, box := range order {
		label, value := 0, 0
		for _, v := range groups[box] {
			label, value = max(label, len(v.Label)), max(value, len(v.Value))
		}
		width := max(label+value+5, len(box)+2)
		fmt.Fprintf(w, "╭%s╮\n│ %-*s │\n├%s┬%s┤\n", strings.Repeat("─", width), width-2, box,
			strings.Repeat("─", label+2), strings.Repeat("─", width-label-3))
		for _, v := range groups[box] {
			fmt.Fprintf(w, "│ %-*s │ %-*s │\n", label, v.Label, width-label-5, v.Value)
		}
		fmt.Fprintf(w, "╰%s┴%s╯\n", strings.Repeat("─", label+2), strings.Repeat("─", width-label-3))
	}
}
