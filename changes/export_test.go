package changes

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/policy"
)

// ParseFilter returns the conditions of a filter as the original's messages show
// them.
func ParseFilter(s string) ([]string, error) {
	list, err := parseFilter(s)
	var out []string
	for _, c := range list {
		out = append(out, c.text)
	}
	return out, err
}

// ListOf returns the elements of an in filter, nil when only PostgreSQL can tell.
func ListOf(filter string) []string {
	list, err := parseFilter(filter)
	if err != nil || len(list) != 1 {
		return nil
	}
	return list[0].list
}

// ParseParams returns the parameters of a binding as the original's messages show
// them.
func ParseParams(raw string) (string, error) {
	p, err := parseParams(json.RawMessage(raw))
	if err != nil {
		return "", err
	}
	return p.String(), nil
}

// Compare evaluates column op value without a database, where that is possible.
func Compare(op, value string, typ uint32, text string) (yes, known bool) {
	o, ok := policy.ParseOp(op)
	if !ok {
		return false, false
	}
	c := newCondition("c", o, value, false)
	return compare(&c, typ, []byte(text))
}

// Type describes a type for AppendJSON, as words from the outside in: "array
// int4", "domain timestamptz", "row int4 text", "hstore".
func Type(words string) *sqlType {
	head, rest, _ := strings.Cut(words, " ")
	switch head {
	case "array":
		return &sqlType{name: "_", delim: ',', elem: Type(rest)}
	case "domain":
		return &sqlType{name: head, delim: ',', base: Type(rest)}
	case "row":
		t := &sqlType{name: head, delim: ','}
		for _, w := range strings.Fields(rest) {
			t.attrs = append(t.attrs, attribute{w, Type(w)})
		}
		return t
	}
	oid := map[string]uint32{
		"bool": oidBool, "bytea": oidBytea, "int2": oidInt2, "int4": oidInt4, "int8": oidInt8, "json": oidJSON, "jsonb": oidJSONB,
		"float4": oidFloat4, "float8": oidFloat8, "numeric": oidNumeric, "timestamp": oidTimestamp, "timestamptz": oidTimestamptz,
		"text": oidText, "varchar": oidVarchar, "bpchar": oidBpchar, "uuid": oidUUID,
	}[head]
	delim := byte(',')
	if head == "box" {
		delim = ';'
	}
	return &sqlType{oid: oid, name: head, delim: delim}
}

// OID returns the number of a type that Type knows.
func OID(name string) uint32 { return Type(name).oid }

// AppendJSON renders a value.
func AppendJSON(dst, text []byte, t *sqlType) []byte { return appendJSON(dst, text, t) }

// Settled returns the position up to which every change was decided and handed to
// its subscribers. handed is the position up to which Handle was given everything.
func (s *Service) Settled(handed sluice.LSN) sluice.LSN { return s.open.before(handed) }

// Turn does now what Run does every second: it notes positions and moves the floor.
func (s *Service) Turn(now time.Time) { s.turn(now) }
