package policy

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// OIDs of PostgreSQL's own types.
const (
	oidBool        = 16
	oidBytea       = 17
	oidName        = 19
	oidInt8        = 20
	oidInt2        = 21
	oidInt4        = 23
	oidText        = 25
	oidOID         = 26
	oidJSON        = 114
	oidFloat4      = 700
	oidFloat8      = 701
	oidBpchar      = 1042
	oidVarchar     = 1043
	oidDate        = 1082
	oidTime        = 1083
	oidTimestamp   = 1114
	oidTimestamptz = 1184
	oidInterval    = 1186
	oidNumeric     = 1700
	oidUUID        = 2950
	oidJSONB       = 3802
)

// datumText writes a constant in the notation that its type's input function
// reads. A constant of the tree is in the server's memory format: little-endian,
// with a length word before what has no fixed size. label names the value of an
// enum. It refuses types that it does not know.
func datumText(typ uint32, d datum, label func(oid uint32) (string, bool)) (string, error) {
	r := reader{d}
	switch typ {
	case oidBool:
		if b := r.bytes(1); b != nil {
			return strconv.FormatBool(b[0] != 0), nil
		}
	case oidInt2:
		return r.signed(2)
	case oidInt4:
		return r.signed(4)
	case oidInt8:
		return r.signed(8)
	case oidOID:
		if b := r.bytes(4); b != nil {
			return strconv.FormatUint(uint64(binary.LittleEndian.Uint32(b)), 10), nil
		}
	case oidFloat4:
		if b := r.bytes(4); b != nil {
			return floatText(float64(math.Float32frombits(binary.LittleEndian.Uint32(b))), 32), nil
		}
	case oidFloat8:
		if b := r.bytes(8); b != nil {
			return floatText(math.Float64frombits(binary.LittleEndian.Uint64(b)), 64), nil
		}
	case oidUUID:
		if b := r.bytes(16); b != nil {
			h := hex.EncodeToString(b)
			return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:], nil
		}
	case oidDate, oidTime, oidTimestamp, oidTimestamptz, oidInterval:
		return timeText(typ, &r)
	case oidText, oidVarchar, oidBpchar, oidJSON:
		if b, ok := r.varlena(); ok {
			return string(b), nil
		}
	case oidName:
		return string(r.rest[:nulAt(r.rest)]), nil
	case oidBytea:
		if b, ok := r.varlena(); ok {
			return `\x` + hex.EncodeToString(b), nil
		}
	case oidNumeric:
		if b, ok := r.varlena(); ok {
			return numericText(b)
		}
	case oidJSONB:
		if b, ok := r.varlena(); ok {
			out, err := appendJSONB(nil, b, 0)
			return string(out), err
		}
	default:
		if label != nil && len(d) == 4 {
			if s, ok := label(binary.LittleEndian.Uint32(d)); ok {
				return s, nil
			}
		}
		if elements := arrayElements[typ]; elements.oid != 0 {
			if b, ok := r.varlena(); ok {
				return arrayText(b, elements)
			}
		}
		return "", refuse("a constant of a type that is not read here (%d)", typ)
	}
	return "", refuse("a constant that cannot be read")
}

func nulAt(b []byte) int {
	for i, c := range b {
		if c == 0 {
			return i
		}
	}
	return len(b)
}

// reader takes bytes from the front; nil when there are too few.
type reader struct{ rest []byte }

func (r *reader) bytes(n int) []byte {
	if n < 0 || len(r.rest) < n {
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) signed(n int) (string, error) {
	b := r.bytes(n)
	if b == nil {
		return "", refuse("a constant that cannot be read")
	}
	var v int64
	switch n {
	case 2:
		v = int64(int16(binary.LittleEndian.Uint16(b)))
	case 4:
		v = int64(int32(binary.LittleEndian.Uint32(b)))
	default:
		v = int64(binary.LittleEndian.Uint64(b))
	}
	return strconv.FormatInt(v, 10), nil
}

func (r *reader) int64() (int64, bool) {
	b := r.bytes(8)
	if b == nil {
		return 0, false
	}
	return int64(binary.LittleEndian.Uint64(b)), true
}

func (r *reader) int32() (int32, bool) {
	b := r.bytes(4)
	if b == nil {
		return 0, false
	}
	return int32(binary.LittleEndian.Uint32(b)), true
}

// varlena takes a value with its length before it: one byte with the lowest bit
// set, or four with the two lowest bits clear. Others are compressed or stored
// elsewhere, which a constant is not.
func (r *reader) varlena() ([]byte, bool) {
	switch {
	case len(r.rest) > 0 && r.rest[0]&1 == 1 && r.rest[0] != 1:
		b := r.bytes(int(r.rest[0] >> 1))
		if len(b) < 1 {
			return nil, false
		}
		return b[1:], true
	case len(r.rest) >= 4 && r.rest[0]&3 == 0:
		b := r.bytes(int(binary.LittleEndian.Uint32(r.rest) >> 2))
		if len(b) < 4 {
			return nil, false
		}
		return b[4:], true
	}
	return nil, false
}

func floatText(f float64, bits int) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	return strconv.FormatFloat(f, 'g', -1, bits)
}

// epoch is where PostgreSQL's times begin.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func timeText(typ uint32, r *reader) (string, error) {
	if typ == oidDate {
		days, ok := r.int32()
		switch {
		case !ok:
			return "", refuse("a constant that cannot be read")
		case days == math.MaxInt32:
			return "infinity", nil
		case days == math.MinInt32:
			return "-infinity", nil
		}
		return yearBound(epoch.AddDate(0, 0, int(days)), "2006-01-02")
	}
	us, ok := r.int64()
	if !ok {
		return "", refuse("a constant that cannot be read")
	}
	switch typ {
	case oidTime:
		return clock(us), nil
	case oidInterval:
		days, ok1 := r.int32()
		months, ok2 := r.int32()
		if !ok1 || !ok2 || us == math.MinInt64 || us == math.MaxInt64 {
			return "", refuse("an interval that cannot be read")
		}
		sign := ""
		if us < 0 {
			sign, us = "-", -us
		}
		return fmt.Sprintf("%d mons %d days %s%s", months, days, sign, clock(us)), nil
	}
	switch us {
	case math.MaxInt64:
		return "infinity", nil
	case math.MinInt64:
		return "-infinity", nil
	}
	seconds, micros := us/1e6, us%1e6
	t := time.Unix(epoch.Unix()+seconds, micros*1000).UTC()
	if typ == oidTimestamptz {
		return yearBound(t, "2006-01-02 15:04:05.000000+00")
	}
	return yearBound(t, "2006-01-02 15:04:05.000000")
}

func yearBound(t time.Time, layout string) (string, error) {
	if t.Year() < 1 || t.Year() > 9999 {
		return "", refuse("a date out of the ordinary")
	}
	return t.Format(layout), nil
}

// clock writes microseconds as hours, minutes and seconds.
func clock(us int64) string {
	s := us / 1e6
	return fmt.Sprintf("%02d:%02d:%02d.%06d", s/3600, s/60%60, s%60, us%1e6)
}

// numericText writes a numeric (numeric.c: a header of two or four bytes, then
// digits to the base 10,000).
func numericText(b []byte) (string, error) {
	r := reader{b}
	head := r.bytes(2)
	if head == nil {
		return "", refuse("a constant that cannot be read")
	}
	h := binary.LittleEndian.Uint16(head)
	var negative bool
	var scale, weight int
	switch {
	case h&0xF000 == 0xC000:
		return "NaN", nil
	case h&0xF000 == 0xD000:
		return "Infinity", nil
	case h&0xF000 == 0xF000:
		return "-Infinity", nil
	case h&0x8000 != 0:
		negative, scale, weight = h&0x2000 != 0, int(h&0x1F80)>>7, int(h&0x3F)
		if h&0x40 != 0 {
			weight -= 64
		}
	default:
		w := r.bytes(2)
		if w == nil {
			return "", refuse("a constant that cannot be read")
		}
		negative, scale, weight = h&0x4000 != 0, int(h&0x3FFF), int(int16(binary.LittleEndian.Uint16(w)))
	}
	digit := func(i int) int { // the i-th group of four
		if i < 0 || 2*i+2 > len(r.rest) {
			return 0
		}
		return int(binary.LittleEndian.Uint16(r.rest[2*i:]))
	}
	var s strings.Builder
	if negative {
		s.WriteByte('-')
	}
	if weight < 0 {
		s.WriteByte('0')
	}
	for i := 0; i <= weight; i++ {
		if i == 0 {
			fmt.Fprintf(&s, "%d", digit(0))
		} else {
			fmt.Fprintf(&s, "%04d", digit(i))
		}
	}
	if scale > 0 {
		var f strings.Builder
		for i := weight + 1; f.Len() < scale; i++ {
			fmt.Fprintf(&f, "%04d", digit(i))
		}
		s.WriteByte('.')
		s.WriteString(f.String()[:scale])
	}
	return s.String(), nil
}

// element is how an array stores its values.
type element struct {
	oid   uint32
	size  int // -1: with a length before each
	align int
}

// arrayElements are the array types of which constants are read.
var arrayElements = map[uint32]element{
	1000: {oidBool, 1, 1}, 1005: {oidInt2, 2, 2}, 1007: {oidInt4, 4, 4}, 1016: {oidInt8, 8, 8},
	1009: {oidText, -1, 4}, 1015: {oidVarchar, -1, 4}, 1014: {oidBpchar, -1, 4}, 2951: {oidUUID, 16, 1}, 1231: {oidNumeric, -1, 4},
}

// arrayText writes an array of one dimension that begins at 1.
func arrayText(b []byte, el element) (string, error) {
	bad := refuse("an array that cannot be read")
	r := reader{b}
	dims, ok := r.int32()
	offset, ok2 := r.int32()
	if !ok || !ok2 || r.bytes(4) == nil {
		return "", bad
	}
	if dims == 0 {
		return "{}", nil
	}
	n, _ := r.int32()
	if lower, ok := r.int32(); dims != 1 || !ok || lower != 1 || n < 0 {
		return "", bad
	}
	nulls := []byte(nil)
	if offset != 0 {
		if nulls = r.bytes((int(n) + 7) / 8); nulls == nil || int(offset)-4 > len(b) || offset < 4 {
			return "", bad
		}
		r.rest = b[offset-4:]
	}
	at := func() int { return len(b) - len(r.rest) + 4 } // from the length word on
	out := []byte{'{'}
	for i := range int(n) {
		if i > 0 {
			out = append(out, ',')
		}
		if nulls != nil && nulls[i/8]&(1<<(i%8)) == 0 {
			out = append(out, "NULL"...)
			continue
		}
		if pad := -at() & (el.align - 1); r.bytes(pad) == nil && pad > 0 {
			return "", bad
		}
		from := at() - 4
		if el.size < 0 {
			if _, ok := r.varlena(); !ok {
				return "", bad
			}
		} else if r.bytes(el.size) == nil {
			return "", bad
		}
		text, err := datumText(el.oid, b[from:at()-4], nil)
		if err != nil {
			return "", err
		}
		out = appendElement(out, text)
	}
	return string(append(out, '}')), nil
}

// appendElement writes one quoted element of an array literal.
func appendElement(dst []byte, text string) []byte {
	dst = append(dst, '"')
	for i := range len(text) {
		if c := text[i]; c == '"' || c == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, text[i])
	}
	return append(dst, '"')
}

// The format of jsonb (jsonb.h): a header, an entry for each value, the values.
const (
	jsonbCount  = 0x0FFFFFFF
	jsonbScalar = 0x10000000
	jsonbObject = 0x20000000
	jsonbArray  = 0x40000000
	entryOffset = 0x80000000
)

// appendJSONB writes a container as JSON.
func appendJSONB(dst, b []byte, depth int) ([]byte, error) {
	bad := refuse("a jsonb constant that cannot be read")
	if len(b) < 4 || depth > maxNodeDepth {
		return nil, bad
	}
	head := binary.LittleEndian.Uint32(b)
	n := int(head & jsonbCount)
	entries := n
	if head&jsonbObject != 0 {
		entries *= 2
	}
	if entries < 0 || len(b) < 4+4*entries {
		return nil, bad
	}
	data := b[4+4*entries:]
	end := 0
	var err error
	value := func(dst []byte, i int) []byte {
		e := binary.LittleEndian.Uint32(b[4+4*i:])
		start := end
		if e&entryOffset != 0 {
			end = int(e & jsonbCount)
		} else {
			end += int(e & jsonbCount)
		}
		if end < start || end > len(data) {
			err = bad
			return dst
		}
		aligned := min((start+3)&^3, end)
		switch e & 0x70000000 {
		case 0: // string
			text, _ := json.Marshal(string(data[start:end])) // always valid
			return append(dst, text...)
		case 0x10000000:
			r := reader{data[aligned:end]}
			v, ok := r.varlena()
			text, nerr := numericText(v)
			if !ok || nerr != nil {
				err = bad
			}
			return append(dst, text...)
		case 0x20000000:
			return append(dst, "false"...)
		case 0x30000000:
			return append(dst, "true"...)
		case 0x40000000:
			return append(dst, "null"...)
		case 0x50000000:
			out, cerr := appendJSONB(dst, data[aligned:end], depth+1)
			if cerr != nil {
				err = cerr
				return dst
			}
			return out
		}
		err = bad
		return dst
	}
	switch {
	case head&jsonbScalar != 0 && n == 1:
		dst = value(dst, 0)
	case head&jsonbObject != 0:
		// The keys come first, then the values, in the same order.
		keys := make([]string, n)
		for i := range n {
			keys[i] = string(value(nil, i))
		}
		dst = append(dst, '{')
		for i := range n {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = value(append(append(dst, keys[i]...), ':'), n+i)
		}
		dst = append(dst, '}')
	case head&jsonbArray != 0:
		dst = append(dst, '[')
		for i := range n {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = value(dst, i)
		}
		dst = append(dst, ']')
	default:
		err = bad
	}
	return dst, err
}
