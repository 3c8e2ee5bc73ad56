package project

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/sluice-dev/sluice"
)

// readEnvironment merges the process's environment with the dotenv files from
// supabase/ up to the repository's root (the folder with .git, else the project
// folder). The process wins; nearer and more specific files win over others.
func readEnvironment(dir string, environ []string) (map[string]string, error) {
	env := map[string]string{}
	for _, kv := range environ {
		if k, v, ok := strings.Cut(kv, "="); ok {
			env[k] = v
		}
	}
	name := env["SUPABASE_ENV"]
	if name == "" {
		name = "development"
	}
	folders := []string{filepath.Join(dir, "supabase")}
	root := repositoryRoot(dir)
	for d := dir; ; d = filepath.Dir(d) {
		folders = append(folders, d)
		if d == root || d == filepath.Dir(d) {
			break
		}
	}
	for _, d := range folders {
		for _, file := range []string{".env." + name + ".local", ".env.local", ".env." + name, ".env"} {
			if name == "test" && file == ".env.local" {
				continue // as dotenv tools do: tests are the same for everybody
			}
			path := filepath.Join(d, file)
			text, err := readBounded(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("read %s: %w", path, err)
			}
			vars, err := parseDotenv(string(text))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			for k, v := range vars {
				if _, ok := env[k]; !ok {
					env[k] = v
				}
			}
		}
	}
	return env, nil
}

// repositoryRoot returns the nearest ancestor with a .git, or dir itself.
func repositoryRoot(dir string) string {
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, ".git")); err == nil {
			return d
		}
		if d == filepath.Dir(d) {
			return dir
		}
	}
}

var dotenvName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*$`)

// parseDotenv reads NAME=value lines: optional "export", single quotes literal,
// double quotes with \n \r \t \" \\ \$ and over several lines, # comments. There
// is no expansion of other variables: a value is what stands there.
func parseDotenv(text string) (map[string]string, error) {
	vars := map[string]string{}
	for n := 1; text != ""; n++ {
		var line string
		line, text, _ = strings.Cut(text, "\n")
		line = strings.TrimSpace(strings.TrimPrefix(line, "\ufeff"))
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		line = strings.TrimSpace(strings.TrimPrefix(line, "export "))
		name, value, ok := strings.Cut(line, "=")
		name = strings.TrimSpace(name)
		if !ok || !dotenvName.MatchString(name) {
			return nil, fmt.Errorf("line %d: write NAME=value: %w", n, sluice.ErrInvalid)
		}
		value = strings.TrimSpace(value)
		if value == "" || value[0] != '"' && value[0] != '\'' {
			if i := strings.Index(value, " #"); i >= 0 {
				value = strings.TrimSpace(value[:i])
			}
			vars[name] = value
			continue
		}
		rest := value[1:]
		if text != "" {
			rest += "\n" + text
		}
		v, used, ok := quoted(rest, value[0])
		if !ok {
			return nil, fmt.Errorf("line %d: the quote of %s is not closed: %w", n, name, sluice.ErrInvalid)
		}
		vars[name] = v
		n += strings.Count(rest[:used], "\n")
		_, text, _ = strings.Cut(rest[used:], "\n")
	}
	return vars, nil
}

// quoted reads up to the closing quote and returns the value and how many bytes
// were read, the quote included.
func quoted(s string, quote byte) (value string, used int, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == quote:
			return b.String(), i + 1, true
		case c == '\\' && quote == '"' && i+1 < len(s):
			i++
			switch s[i] {
			case 'n':
				b.WriteByte('\n')
			case 'r':
				b.WriteByte('\r')
			case 't':
				b.WriteByte('\t')
			default:
				b.WriteByte(s[i])
			}
		default:
			b.WriteByte(c)
		}
	}
	return "", 0, false
}
