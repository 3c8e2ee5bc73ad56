package project

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the generated part of docs/config.md")

// Marks around the generated part.
const (
	docBegin = "<!-- keys: go test ./project -run TestConfigDoc -update -->\n"
	docEnd   = "<!-- end of keys -->"
)

// TestConfigDoc holds docs/config.md: every key of Config with its default and
// the comment of its field.
func TestConfigDoc(t *testing.T) {
	const file = "../docs/config.md"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), docBegin)
	_, after, found := strings.Cut(rest, docEnd)
	if !ok || !found {
		t.Fatalf("%s lacks the marks of its generated part", file)
	}
	want := before + docBegin + keysTable(t) + docEnd + after
	if want == string(text) {
		return
	}
	if !*update {
		t.Fatalf("%s is not up to date; run: go test ./project -run TestConfigDoc -update", file)
	}
	if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// keysTable lists the keys section by section, in the order of the source.
func keysTable(t *testing.T) string {
	parsed, err := parser.ParseFile(token.NewFileSet(), "config.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	comments := map[string]string{} // by type.field
	ast.Inspect(parsed, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if s, ok := spec.Type.(*ast.StructType); ok {
			for _, f := range s.Fields.List {
				for _, name := range f.Names {
					text := f.Doc.Text() + f.Comment.Text()
					comments[spec.Name.Name+"."+name.Name] = strings.Join(strings.Fields(text), " ")
				}
			}
		}
		return true
	})
	var b strings.Builder
	writeKeys(&b, "", reflect.ValueOf(defaults()), comments)
	return b.String()
}

func writeKeys(b *strings.Builder, section string, v reflect.Value, comments map[string]string) {
	type part struct {
		name  string
		value reflect.Value
	}
	var parts []part
	rows := 0
	for i := range v.NumField() {
		field, value := v.Type().Field(i), v.Field(i)
		key := field.Tag.Get("toml")
		path := strings.TrimPrefix(section+"."+key, ".")
		switch {
		case value.Kind() == reflect.Struct:
			parts = append(parts, part{path, value})
			continue
		case value.Kind() == reflect.Map && value.Type().Elem().Kind() == reflect.Struct:
			parts = append(parts, part{path + ".NAME", reflect.New(value.Type().Elem()).Elem()})
			continue
		case value.Kind() == reflect.Map && value.Type().Elem().Kind() == reflect.Interface && key != "settings":
			continue // known, and not served: it is warned about
		}
		if rows == 0 {
			title := "At the top"
			if section != "" {
				title = "[" + section + "]"
			}
			fmt.Fprintf(b, "\n### %s\n\n| key | default | |\n|---|---|---|\n", title)
		}
		rows++
		comment, _, _ := strings.Cut(comments[v.Type().Name()+"."+field.Name], "; default")
		text := defaultText(value)
		if text != "" && strings.HasPrefix(comment, "default ") && !strings.Contains(comment, ":") {
			comment = "" // says what the column says
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", key, text, strings.ReplaceAll(comment, "|", "\\|"))
	}
	for _, p := range parts {
		writeKeys(b, p.name, p.value, comments)
	}
}

func defaultText(v reflect.Value) string {
	if d, ok := v.Interface().(Duration); ok {
		text, _ := d.MarshalText() // cannot fail
		if d == 0 {
			return ""
		}
		return "`" + string(text) + "`"
	}
	switch {
	case v.Kind() == reflect.Bool:
		return fmt.Sprintf("`%t`", v.Bool())
	case v.IsZero() || v.Kind() == reflect.Pointer:
		return ""
	}
	return fmt.Sprintf("`%v`", v.Interface())
}
