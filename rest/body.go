package rest

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// Media types of bodies that become JSON.
const (
	formType = "application/x-www-form-urlencoded"
	csvType  = "text/csv"
)

// readBody reads a bounded body into the request's share of memory. A form or CSV
// becomes JSON, all values text; the form of a function stays, as its keys may
// repeat.
func (s *Server) readBody(h *http.Request, r *request, sh *share) ([]byte, error) {
	if h.Body == nil {
		return nil, nil
	}
	body, err := sh.read(h.Body, h.ContentLength)
	size := int64(len(body))
	switch {
	case err != nil:
		return nil, err
	case r.bodyType == csvType && !r.function:
		return csvToJSON(string(body), s.cfg.BodyLimit, func(n int64) error { return sh.hold(size + n) })
	case r.bodyType == "application/octet-stream" && r.function:
		return body, sh.hold(3 * size) // for its digits
	case r.bodyType != formType:
		return body, nil
	}
	pairs, err := formPairs(string(body))
	if err != nil {
		return nil, err
	}
	if r.function {
		r.args = pairs
		return nil, nil
	}
	row := map[string]string{}
	for _, p := range pairs {
		row[p.name] = p.value
	}
	out, err := marshal(row)
	if err != nil {
		return nil, fmt.Errorf("write form: %w", err)
	}
	return out, sh.hold(size + int64(len(out)))
}

// formPairs reads a form in the order of its pairs.
func formPairs(text string) ([]argument, error) {
	var out []argument
	for pair := range strings.SplitSeq(strings.TrimSpace(text), "&") {
		k, v, _ := strings.Cut(pair, "=")
		name, err1 := url.QueryUnescape(k)
		value, err2 := url.QueryUnescape(v)
		switch {
		case pair == "":
		case err1 != nil || err2 != nil || len(out) >= maxFilters:
			return nil, fail(http.StatusBadRequest, "PGRST102", "The form is not valid")
		default:
			out = append(out, argument{name: name, value: value})
		}
	}
	return out, nil
}

// csvToJSON makes an array of objects of a header line and rows. The bare word
// NULL is null, an empty field the empty string.
//
// Names come again in every row: no more than limit bytes are made of them, and
// hold is asked for the room.
func csvToJSON(text string, limit int64, hold func(int64) error) ([]byte, error) {
	if text == "" {
		return []byte("[]"), nil
	}
	line, text, err := csvLine(nil, text)
	if err != nil {
		return nil, err
	}
	names := make([][]byte, len(line))
	for i, f := range line {
		if names[i], err = marshal(f.text); err != nil {
			return nil, fmt.Errorf("write name: %w", err)
		}
	}
	var b bytes.Buffer
	b.WriteByte('[')
	for n := 0; text != ""; n++ {
		if line, text, err = csvLine(line[:0], text); err != nil {
			return nil, err
		}
		if len(line) != len(names) {
			return nil, fail(http.StatusBadRequest, "PGRST102", "All lines must have same number of fields")
		}
		if err := hold(int64(b.Cap())); err != nil {
			return nil, err
		}
		if int64(b.Len()) > limit {
			return nil, fail(http.StatusRequestEntityTooLarge, "PGRST102", fmt.Sprintf("The rows of this CSV are more than %d bytes as JSON; send fewer at once", limit))
		}
		if n > 0 {
			b.WriteByte(',')
		}
		for i, f := range line {
			b.WriteByte("{,"[min(i, 1)])
			b.Write(names[i])
			b.WriteByte(':')
			value := []byte("null")
			if f.quoted || f.text != "NULL" {
				if value, err = marshal(f.text); err != nil {
					return nil, fmt.Errorf("write value: %w", err)
				}
			}
			b.Write(value)
		}
		b.WriteByte('}')
	}
	b.WriteByte(']')
	return b.Bytes(), nil
}

// csvField is a field of CSV; a quoted NULL is a word.
type csvField struct {
	text   string
	quoted bool
}

// csvLine reads the fields of the first line, quoted where they hold a separator,
// into line, and returns the lines behind it.
func csvLine(line []csvField, text string) (_ []csvField, rest string, err error) {
	for more := true; more; {
		f, after, err := csvFieldOf(text)
		if err != nil {
			return nil, "", err
		}
		line = append(line, f)
		text, more = strings.CutPrefix(after, ",")
	}
	return line, strings.TrimPrefix(strings.TrimPrefix(text, "\r"), "\n"), nil
}

// csvFieldOf reads one field and returns what follows it: a comma, the end of the
// line, or nothing.
func csvFieldOf(text string) (f csvField, rest string, err error) {
	if !strings.HasPrefix(text, `"`) {
		end := strings.IndexAny(text, ",\r\n")
		if end < 0 {
			end = len(text)
		}
		return csvField{text: text[:end]}, text[end:], nil
	}
	var b strings.Builder
	for doubled := true; doubled; {
		part, after, closed := strings.Cut(text[1:], `"`)
		if b.WriteString(part); !closed {
			return f, "", fail(http.StatusBadRequest, "PGRST102", "A quoted field does not end")
		}
		if doubled = strings.HasPrefix(after, `"`); doubled {
			b.WriteByte('"')
		}
		text = after
	}
	if text != "" && text[0] != ',' && text[0] != '\r' && text[0] != '\n' {
		return f, "", fail(http.StatusBadRequest, "PGRST102", "A quoted field does not end at a separator")
	}
	return csvField{b.String(), true}, text, nil
}
