package changes

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/sluice-dev/sluice"
)

// params are the parameters of one binding (spec postgres-changes 3.2).
type params struct {
	event         sluice.ChangeKind // 0 is every event
	schema, table string            // "*" is every one
	filters       []condition
	columns       []string // select; nil is all
	// left asks for a DELETE when an UPDATE takes a row out of what the
	// subscription sees, by its policies or its filters. Sluice's own.
	left bool
}

const (
	textNoParams = "No subscription params provided. Please provide at least a `schema` or `table` to subscribe to: "
	textFilter   = "Error parsing `filter` params: "
	textSelect   = "Error parsing `select` params: expected a list of column name strings, e.g. select: [\"col1\", \"col2\"]"
	textWildcard = "Column selection is not supported for wildcard subscriptions. Provide an explicit schema and table name."
	textUnable   = "Unable to subscribe to changes with given parameters. "
)

// parseParams reads a client's object. The error has the original's text.
func parseParams(raw json.RawMessage) (params, error) {
	m, err := decodeObject(raw)
	if err != nil {
		return params{}, subscribeError(textNoParams + "nil")
	}
	var p params
	schema, isSchema := m["schema"].(string)
	table, isTable := m["table"].(string)
	filter, isFilter := m["filter"].(string)
	_, hasSchema := m["schema"]
	_, hasTable := m["table"]
	_, hasFilter := m["filter"]
	switch {
	case isSchema && isTable && (isFilter || !hasFilter):
		p.schema, p.table = schema, table
	case isSchema && !hasTable && !hasFilter:
		p.schema, p.table = schema, "*"
	case isTable && !hasSchema && !hasFilter:
		p.schema, p.table = "public", table
	default:
		return p, subscribeError(textNoParams + inspectParams(m))
	}
	if e, ok := m["event"].(string); ok {
		p.event = map[string]sluice.ChangeKind{
			"INSERT": sluice.ChangeInsert, "UPDATE": sluice.ChangeUpdate, "DELETE": sluice.ChangeDelete,
		}[strings.ToUpper(e)]
	}
	if p.filters, err = parseFilter(filter); err != nil {
		return p, subscribeError(textFilter + err.Error())
	}
	switch sel := m["select"].(type) {
	case string:
		return p, subscribeError(textSelect)
	case []any:
		for _, v := range sel {
			if s, ok := v.(string); ok {
				p.columns = append(p.columns, s)
			}
		}
	}
	p.left, _ = m["left"].(bool)
	if p.columns != nil && (p.schema == "*" || p.table == "*") {
		return p, subscribeError(textWildcard)
	}
	return p, nil
}

func subscribeError(text string) *sluice.SubscribeError {
	return &sluice.SubscribeError{Message: text, Refusal: sluice.Refuse(sluice.CodeSubscriptionParams).WithText("%s", text)}
}

// decodeObject keeps numbers as they were written.
func decodeObject(raw json.RawMessage) (map[string]any, error) {
	var m map[string]any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	err := d.Decode(&m)
	return m, err
}

// String renders the parameters as the original's messages do.
func (p *params) String() string {
	event := "*"
	if p.event != 0 {
		event = p.event.String()
	}
	var b strings.Builder
	b.WriteString("[event: " + event + ", schema: " + p.schema + ", table: " + p.table + ", filters: [")
	for i, c := range p.filters {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(c.text)
	}
	b.WriteString("], select: ")
	if p.columns == nil {
		b.WriteString("nil]")
		return b.String()
	}
	items := make([]any, len(p.columns))
	for i, c := range p.columns {
		items[i] = c
	}
	return b.String() + inspect(items) + "]"
}

// inspectParams renders an object in Elixir's notation; tokens are not shown.
func inspectParams(m map[string]any) string {
	if _, ok := m["user_token"]; ok {
		return "<redacted>"
	}
	if _, ok := m["auth_token"]; ok {
		return "<redacted>"
	}
	return inspect(m)
}

// inspect renders a JSON value in Elixir's notation. Applications show it to
// people; nothing reads it.
func inspect(v any) string {
	switch v := v.(type) {
	case nil:
		return "nil"
	case string:
		return quoteElixir(v)
	case bool:
		if v {
			return "true"
		}
		return "false"
	case json.Number:
		return v.String()
	case []any:
		parts := make([]string, len(v))
		for i := range v {
			parts[i] = inspect(v[i])
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		parts := make([]string, len(keys))
		for i, k := range keys {
			parts[i] = quoteElixir(k) + " => " + inspect(v[k])
		}
		return "%{" + strings.Join(parts, ", ") + "}"
	}
	return "nil"
}

func quoteElixir(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "\t", `\t`, "#{", `\#{`).Replace(s) + `"`
}
