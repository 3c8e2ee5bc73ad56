package changes

import (
	"bytes"
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice/pg"
	"github.com/sluice-dev/sluice/policy"
)

// sqlType is what rendering a value needs to know of its type.
type sqlType struct {
	oid   uint32
	name  string
	long  string // for people: "character", where name is "bpchar"
	value policy.ValueType
	base  *sqlType // of a domain
	elem  *sqlType // of an array
	delim byte     // of an array of this type
	attrs []attribute
}

// plain returns the type itself, or what a domain stands on.
func (t *sqlType) plain() *sqlType {
	for t.base != nil {
		t = t.base
	}
	return t
}

type attribute struct {
	name string
	typ  *sqlType
}

// loadTypes reads the types of columns and all they are made of.
func loadTypes(ctx context.Context, tx pgx.Tx, columns []columnDef) (map[uint32]*sqlType, error) {
	oids := make([]uint32, len(columns))
	for i, c := range columns {
		oids[i] = c.Type
	}
	rows, err := tx.Query(ctx, typesSQL, oids)
	if err != nil {
		return nil, pg.Wrap(err, "load types")
	}
	defer rows.Close()
	type links struct {
		base, elem uint32
		attrs      []byte
	}
	types, link := map[uint32]*sqlType{}, map[uint32]links{}
	for rows.Next() {
		var t sqlType
		var l links
		var delim string
		if err := rows.Scan(&t.oid, &t.name, &t.long, &t.value.Name, &t.value.Operators, &l.base, &l.elem, &delim, &l.attrs); err != nil {
			return nil, pg.Wrap(err, "load types")
		}
		t.delim = delim[0]
		types[t.oid], link[t.oid] = &t, l
	}
	if err := rows.Err(); err != nil {
		return nil, pg.Wrap(err, "load types")
	}
	for oid, l := range link {
		t := types[oid]
		t.base, t.elem = types[l.base], types[l.elem]
		var attrs [][2]json.RawMessage
		if err := json.Unmarshal(l.attrs, &attrs); err != nil {
			return nil, pg.Wrap(err, "load types")
		}
		for _, a := range attrs {
			var name string
			var typ uint32
			if json.Unmarshal(a[0], &name) == nil && json.Unmarshal(a[1], &typ) == nil {
				t.attrs = append(t.attrs, attribute{name, types[typ]})
			}
		}
	}
	return types, nil
}

// OIDs of built-in types that are more than a string in JSON.
const (
	oidBool, oidBytea, oidInt8, oidInt2, oidInt4 = 16, 17, 20, 21, 23
	oidJSON, oidJSONB                            = 114, 3802
	oidFloat4, oidFloat8, oidNumeric             = 700, 701, 1700
	oidTimestamp, oidTimestamptz                 = 1114, 1184
)

// appendJSON renders a value's text form as upstream's to_jsonb does (spec
// postgres-changes 4.4). A nil type is rendered as text.
func appendJSON(dst, text []byte, t *sqlType) []byte { return appendTyped(dst, text, t, false) }

func appendTyped(dst, text []byte, t *sqlType, inside bool) []byte {
	if t == nil {
		return appendString(dst, text)
	}
	if t.base != nil {
		return appendTyped(dst, text, t.base, inside)
	}
	switch t.oid {
	case oidBool:
		switch string(text) {
		case "t":
			return append(dst, "true"...)
		case "f":
			return append(dst, "false"...)
		}
	case oidInt2, oidInt4, oidInt8:
		if isNumber(text) {
			return append(dst, text...)
		}
	case oidNumeric, oidFloat4, oidFloat8:
		return appendNumber(dst, text, inside)
	case oidJSON, oidJSONB:
		return appendRawJSON(dst, text)
	case oidBytea:
		if !inside {
			text = bytes.TrimPrefix(text, []byte(`\x`))
		}
	case oidTimestamp, oidTimestamptz:
		return appendTimestamp(dst, text, t.oid == oidTimestamptz)
	}
	switch {
	case t.elem != nil:
		if out, ok := appendArray(dst, text, t.elem); ok {
			return out
		}
	case len(t.attrs) > 0:
		if out, ok := appendComposite(dst, text, t.attrs); ok {
			return out
		}
	case t.name == "hstore":
		if out, ok := appendHstore(dst, text); ok {
			return out
		}
	}
	return appendString(dst, text)
}

// appendNumber writes plain decimal digits. NaN and infinities are null, and
// strings inside arrays, as clients know them.
func appendNumber(dst, text []byte, inside bool) []byte {
	s := string(text)
	switch s {
	case "NaN", "Infinity", "-Infinity":
		if inside {
			return appendString(dst, text)
		}
		return append(dst, "null"...)
	case "-0":
		return append(dst, '0')
	}
	mantissa, exp, ok := strings.Cut(s, "e")
	n, err := 0, error(nil)
	if ok {
		n, err = strconv.Atoi(exp)
	}
	switch {
	case !isNumber([]byte(mantissa)), err != nil, n < -maxExponent, n > maxExponent:
		return appendString(dst, text)
	case ok:
		return append(dst, plainDecimal(mantissa, n)...)
	}
	return append(dst, text...)
}

// maxExponent is more than any float has.
const maxExponent = 400

// isNumber reports whether text is digits with a sign and a point, as JSON has
// them. The stream's text may be of a type that the column no longer has.
func isNumber(text []byte) bool {
	text = bytes.TrimPrefix(text, []byte("-"))
	whole, frac, point := bytes.Cut(text, []byte("."))
	digits := func(b []byte) bool {
		return len(b) > 0 && len(bytes.Trim(b, "0123456789")) == 0
	}
	return digits(whole) && (len(whole) == 1 || whole[0] != '0') && (!point || digits(frac))
}

// plainDecimal undoes an exponent: 1.5, 3 is 1500.
func plainDecimal(mantissa string, n int) string {
	sign := ""
	if rest, ok := strings.CutPrefix(mantissa, "-"); ok {
		sign, mantissa = "-", rest
	}
	whole, frac, _ := strings.Cut(mantissa, ".")
	digits, point := whole+frac, len(whole)+n
	switch {
	case point <= 0:
		return sign + "0." + strings.Repeat("0", -point) + digits
	case point >= len(digits):
		return sign + digits + strings.Repeat("0", point-len(digits))
	}
	return sign + digits[:point] + "." + digits[point:]
}

// appendRawJSON embeds JSON without white space between its parts.
func appendRawJSON(dst, text []byte) []byte {
	buf := bytes.NewBuffer(dst)
	if err := json.Compact(buf, text); err != nil || !utf8.Valid(text) {
		return appendString(dst, text)
	}
	return buf.Bytes()
}

// appendTimestamp writes "2024-02-29 13:14:15+00" as 2024-02-29T13:14:15+00:00.
func appendTimestamp(dst, text []byte, zone bool) []byte {
	s := string(text)
	day, clock, ok := strings.Cut(s, " ")
	if !ok { // infinity
		return appendString(dst, text)
	}
	era := ""
	if rest, bc := strings.CutSuffix(clock, " BC"); bc {
		clock, era = rest, " BC"
	}
	if zone && len(clock) > 3 && (clock[len(clock)-3] == '+' || clock[len(clock)-3] == '-') {
		clock += ":00"
	}
	return appendString(dst, []byte(day+"T"+clock+era))
}

// appendArray reads PostgreSQL's array notation.
func appendArray(dst, text []byte, elem *sqlType) ([]byte, bool) {
	// Bounds other than 1: [0:1]={…}
	if len(text) > 0 && text[0] == '[' {
		i := bytes.IndexByte(text, '=')
		if i < 0 {
			return dst, false
		}
		text = text[i+1:]
	}
	p := arrayParser{text: text, elem: elem}
	out, ok := p.array(dst, 0)
	return out, ok && p.pos == len(text)
}

type arrayParser struct {
	text []byte
	pos  int
	elem *sqlType
}

// maxDimensions is PostgreSQL's own limit.
const maxDimensions = 6

func (p *arrayParser) array(dst []byte, depth int) ([]byte, bool) {
	if depth >= maxDimensions || !p.take('{') {
		return dst, false
	}
	dst = append(dst, '[')
	for n := 0; !p.take('}'); n++ {
		if n > 0 {
			if !p.take(p.elem.delim) {
				return dst, false
			}
			dst = append(dst, ',')
		}
		if p.pos < len(p.text) && p.text[p.pos] == '{' {
			var ok bool
			if dst, ok = p.array(dst, depth+1); !ok {
				return dst, false
			}
			continue
		}
		value, quoted, ok := readQuoted(p.text, &p.pos, p.elem.delim, '}')
		if !ok {
			return dst, false
		}
		if !quoted && string(value) == "NULL" {
			dst = append(dst, "null"...)
			continue
		}
		dst = appendTyped(dst, value, p.elem, true)
	}
	return append(dst, ']'), true
}

func (p *arrayParser) take(c byte) bool {
	if p.pos < len(p.text) && p.text[p.pos] == c {
		p.pos++
		return true
	}
	return false
}

// readQuoted reads up to a delimiter or an end, which stay. Quotes with
// backslashes, and doubled quotes inside quotes, are undone.
func readQuoted(text []byte, pos *int, delim, end byte) (value []byte, quoted, ok bool) {
	inside := false
	for *pos < len(text) {
		switch c := text[*pos]; {
		case c == '\\':
			if *pos++; *pos >= len(text) {
				return nil, false, false
			}
			value = append(value, text[*pos])
		case c == '"' && inside && *pos+1 < len(text) && text[*pos+1] == '"':
			*pos++
			value = append(value, '"')
		case c == '"':
			inside, quoted = !inside, true
		case !inside && (c == delim || c == end):
			return value, quoted, true
		default:
			value = append(value, c)
		}
		*pos++
	}
	return nil, false, false
}

// appendComposite reads PostgreSQL's row notation.
func appendComposite(dst, text []byte, attrs []attribute) ([]byte, bool) {
	if len(text) < 2 || text[0] != '(' || text[len(text)-1] != ')' {
		return dst, false
	}
	pos := 1
	dst = append(dst, '{')
	for i, a := range attrs {
		value, quoted, ok := readQuoted(text, &pos, ',', ')')
		if !ok || pos >= len(text) {
			return dst, false
		}
		pos++ // the comma, or the end
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, []byte(a.name)), ':')
		if len(value) == 0 && !quoted {
			dst = append(dst, "null"...)
		} else {
			dst = appendTyped(dst, value, a.typ, true)
		}
	}
	return append(dst, '}'), pos == len(text)
}

// appendHstore reads "k"=>"v", "n"=>NULL.
func appendHstore(dst, text []byte) ([]byte, bool) {
	dst = append(dst, '{')
	pos := 0
	for n := 0; pos < len(text); n++ {
		if n > 0 {
			if !bytes.HasPrefix(text[pos:], []byte(", ")) {
				return dst, false
			}
			pos += 2
			dst = append(dst, ',')
		}
		key, ok := readHstoreString(text, &pos)
		if !ok || !bytes.HasPrefix(text[pos:], []byte("=>")) {
			return dst, false
		}
		pos += 2
		dst = append(appendString(dst, key), ':')
		if bytes.HasPrefix(text[pos:], []byte("NULL")) {
			pos += 4
			dst = append(dst, "null"...)
			continue
		}
		value, ok := readHstoreString(text, &pos)
		if !ok {
			return dst, false
		}
		dst = appendString(dst, value)
	}
	return append(dst, '}'), true
}

// readHstoreString reads a string, which is always quoted.
func readHstoreString(text []byte, pos *int) (value []byte, ok bool) {
	if *pos >= len(text) || text[*pos] != '"' {
		return nil, false
	}
	for *pos++; *pos < len(text); *pos++ {
		switch c := text[*pos]; c {
		case '"':
			*pos++
			return value, true
		case '\\':
			if *pos++; *pos >= len(text) {
				return nil, false
			}
			value = append(value, text[*pos])
		default:
			value = append(value, c)
		}
	}
	return nil, false
}

const hexDigits = "0123456789abcdef"

// appendString writes a JSON string. PostgreSQL's text is UTF-8; what is not is
// replaced, so that a frame is always valid.
func appendString(dst, s []byte) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRune(s[i:])
			if r != utf8.RuneError || n > 1 {
				i += n
				continue
			}
			dst = append(append(dst, s[start:i]...), "\ufffd"...)
		} else {
			dst = append(dst, s[start:i]...)
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\r':
				dst = append(dst, '\\', 'r')
			case '\t':
				dst = append(dst, '\\', 't')
			default:
				dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
		}
		i++
		start = i
	}
	return append(append(dst, s[start:]...), '"')
}
