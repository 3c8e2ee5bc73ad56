package policy

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/sluice-dev/sluice"
)

// env is what an expression is evaluated over.
type env struct {
	row    []value // by attribute number - 1
	slots  []value // of the identity
	claims *claimValues
	set    value // the current element of a set
	// scratch holds the values of arguments that are computed, each in a place of
	// its own: passing them on costs no memory.
	scratch []value
}

// claimValues are the settings that tell who asks.
type claimValues struct {
	claims, sub, role string
	parsed            value // of claims
	done              bool
}

func claimsOf(c sluice.Claims) *claimValues {
	v := &claimValues{claims: string(c.JSON), sub: c.Subject, role: c.Role}
	if v.claims == "" {
		v.claims = "{}" // as package pg sets them
	}
	return v
}

func (c *claimValues) setting(name string) string {
	switch name {
	case "request.jwt.claims":
		return c.claims
	case "request.jwt.claim.sub":
		return c.sub
	}
	return c.role
}

type evalFn func(*env) value

// class is how the values of a type are held.
type class uint8

const (
	cBool class = iota + 1
	cInt
	cText // equal as bytes where they are equal: text under a deterministic collation, uuid, enum
	cJSON
	cArray // of one of the above
)

// evaluator turns expressions into functions.
type evaluator struct {
	*loader
	x       *expander
	scratch int // places that were given out
}

// class returns how the values of a type are held, or false. A domain's are those
// of its base.
func (v *evaluator) class(oid uint32) (class, bool, error) {
	switch oid {
	case oidBool:
		return cBool, true, nil
	case oidInt2, oidInt4, oidInt8:
		return cInt, true, nil
	case oidText, oidVarchar, oidUUID:
		return cText, true, nil
	case oidJSONB:
		return cJSON, true, nil
	}
	t, err := v.sqlType(oid)
	if err != nil {
		return 0, false, err
	}
	switch {
	case t.Kind == "e":
		return cText, true, nil
	case t.Kind == "d":
		return v.class(t.Base)
	case arrayElements[oid].oid != 0:
		_, ok, err := v.class(arrayElements[oid].oid)
		return cArray, ok, err
	}
	return 0, false, nil
}

func (v *evaluator) known(oid uint32) (class, error) {
	c, ok, err := v.class(oid)
	if err == nil && !ok {
		name := "?"
		if t, _ := v.sqlType(oid); t != nil {
			name = t.Name
		}
		err = refuse("a value of type %s", name)
	}
	return c, err
}

// fn turns e into a function. It refuses what is not evaluated here.
func (v *evaluator) fn(e *expr) (evalFn, error) {
	if e.kind == kSubLink {
		return v.setLink(e)
	}
	if _, err := v.known(e.typ); err != nil {
		return nil, err
	}
	args := make([]evalFn, len(e.args))
	for i, a := range e.args {
		var err error
		if args[i], err = v.fn(a); err != nil {
			return nil, err
		}
	}
	switch e.kind {
	case kVar:
		if e.level != 0 {
			return nil, refuse("a column of a sub-select")
		}
		at := e.att - 1
		return func(n *env) value { return n.row[at] }, nil
	case kSlot:
		at := e.att
		return func(n *env) value { return n.slots[at] }, nil
	case kConst:
		c, err := v.constant(e)
		return func(*env) value { return c }, err
	case kFunc:
		if name, ok := v.x.claimSetting(e); ok {
			return func(n *env) value { return text(n.claims.setting(name)) }, nil
		}
		if e.not {
			return func(n *env) value { return n.set }, nil // put there by setLink
		}
		return v.call(e, args)
	case kOp:
		return v.call(e, args)
	case kTest:
		return func(n *env) value { return n.set }, nil
	case kAnd, kOr:
		return connect(e.kind == kOr, args), nil
	case kNot:
		return func(n *env) value {
			x := args[0](n)
			if x.kind == vBool {
				x.n = 1 - x.n
			}
			return x
		}, nil
	case kIsNull:
		not := e.not
		return func(n *env) value {
			x := args[0](n)
			if x.open() {
				return x
			}
			return truth((x.kind == vNull) != not)
		}, nil
	case kIsBool:
		return isBool(e.att, args[0]), nil
	case kRelabel, kCollate:
		return args[0], nil
	case kViaIO:
		return v.viaIO(e, args[0])
	case kArrayViaIO:
		return v.arrayViaIO(e, args[0])
	case kArray:
		return func(n *env) value {
			out := make([]value, len(args))
			for i, a := range args {
				if out[i] = a(n); out[i].open() {
					return out[i]
				}
			}
			return value{kind: vArray, any: out}
		}, nil
	case kCoalesce:
		return func(n *env) value {
			for _, a := range args {
				if x := a(n); x.kind != vNull {
					return x
				}
			}
			return null
		}, nil
	case kCase:
		return func(n *env) value {
			for i := 0; i+1 < len(args); i += 2 {
				switch c := args[i](n); {
				case c.open():
					return c
				case c == yes:
					return args[i+1](n)
				}
			}
			return args[len(args)-1](n)
		}, nil
	case kDistinct, kNullIf, kArrayOp:
		return v.comparing(e, args)
	}
	return nil, refuse("an expression that needs PostgreSQL")
}

// connect is AND or OR, from left to right as PostgreSQL evaluates them.
func connect(or bool, args []evalFn) evalFn {
	decides := truth(or)
	return func(n *env) value {
		unknown, open := false, false
		for _, a := range args {
			switch x := a(n); x.kind {
			case vUnsure:
				return x
			case vNull:
				unknown = true
			case vAny:
				open = true
			default:
				if (x.n == 1) == or {
					return decides
				}
			}
		}
		switch {
		case open && (or || !unknown):
			return some
		case unknown:
			return null
		}
		return truth(!or)
	}
}

// isBool is one of IS [NOT] TRUE, FALSE and UNKNOWN, by PostgreSQL's number.
func isBool(test int, arg evalFn) evalFn {
	return func(n *env) value {
		x := arg(n)
		if x.open() {
			return x
		}
		var holds bool
		switch test / 2 {
		case 0:
			holds = x == yes
		case 1:
			holds = x == no
		default:
			holds = x.kind == vNull
		}
		return truth(holds != (test%2 == 1))
	}
}

// constant reads a constant.
func (v *evaluator) constant(e *expr) (value, error) {
	if e.null {
		return null, nil
	}
	c, err := v.known(e.typ)
	if err != nil {
		return unsure, err
	}
	if c != cArray {
		return fromText(c, e.text), nil
	}
	ec, err := v.known(arrayElements[e.typ].oid)
	if err != nil {
		return unsure, err
	}
	return parseArray(ec, e.text), nil
}

var (
	plainInt  = regexp.MustCompile(`^-?[0-9]{1,18}$`)
	plainUUID = regexp.MustCompile(`^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$`)
)

// viaIO is a cast by way of text.
func (v *evaluator) viaIO(e *expr, arg evalFn) (evalFn, error) {
	from, to := e.args[0].typ, e.typ
	conv, err := v.convert(from, to)
	if err != nil {
		return nil, err
	}
	if to == oidJSONB {
		if name, ok := claimText(v.x, e.args[0]); ok && name == "request.jwt.claims" {
			// The claims are read once for an identity.
			return func(n *env) value {
				if x := arg(n); x.kind != vText || x.s != n.claims.claims {
					return conv(x)
				}
				if !n.claims.done {
					n.claims.parsed, n.claims.done = parseJSON(n.claims.claims), true
				}
				return n.claims.parsed
			}, nil
		}
	}
	return func(n *env) value { return conv(arg(n)) }, nil
}

// claimText looks through NULLIF and COALESCE for the setting that is read.
func claimText(x *expander, e *expr) (string, bool) {
	for e.kind == kNullIf || e.kind == kCoalesce || e.kind == kRelabel {
		i := 0
		if e.kind == kCoalesce { // the last is the one of today's PostgREST
			i = len(e.args) - 1
		}
		e = e.args[i]
	}
	return x.claimSetting(e)
}

// convert returns a conversion of a value that is not NULL.
func (v *evaluator) convert(from, to uint32) (func(value) value, error) {
	fc, err := v.known(from)
	if err != nil {
		return nil, err
	}
	tt, err := v.sqlType(to)
	if err != nil {
		return nil, err
	}
	var out func(value) value
	switch {
	case fc == cJSON || fc == cArray || tt.Kind == "d":
		return nil, refuse("a cast of a composed value to text")
	case to == oidText || to == oidVarchar:
		out = func(x value) value {
			switch x.kind {
			case vBool:
				return text(strconv.FormatBool(x.n == 1))
			case vInt:
				return text(strconv.FormatInt(x.n, 10))
			}
			return x
		}
	case fc != cText:
		return nil, refuse("a cast by way of text")
	case to == oidUUID:
		out = func(x value) value {
			if !plainUUID.MatchString(x.s) {
				return unsure
			}
			return text(strings.ToLower(x.s))
		}
	case to == oidInt2, to == oidInt4, to == oidInt8:
		bits := map[uint32]int{oidInt2: 16, oidInt4: 32, oidInt8: 64}[to]
		out = func(x value) value {
			n, err := strconv.ParseInt(x.s, 10, bits)
			if err != nil || !plainInt.MatchString(x.s) {
				return unsure
			}
			return value{kind: vInt, n: n}
		}
	case to == oidBool:
		out = func(x value) value { return fromText(cBool, x.s) }
	case to == oidJSONB:
		out = func(x value) value { return parseJSON(x.s) }
	case tt.Kind == "e":
		labels := map[string]bool{}
		for _, l := range tt.Labels {
			labels[l] = true
		}
		out = func(x value) value {
			if !labels[x.s] {
				return unsure
			}
			return x
		}
	default:
		return nil, refuse("a cast to %s", tt.Name)
	}
	return func(x value) value {
		if x.kind == vNull || x.open() {
			return x
		}
		return out(x)
	}, nil
}

func (v *evaluator) arrayViaIO(e *expr, arg evalFn) (evalFn, error) {
	from, to := arrayElements[e.args[0].typ], arrayElements[e.typ]
	if from.oid == 0 || to.oid == 0 {
		return nil, refuse("a cast of an array")
	}
	conv, err := v.convert(from.oid, to.oid)
	if err != nil {
		return nil, err
	}
	return func(n *env) value {
		x := arg(n)
		list, ok := x.any.([]value)
		if x.kind != vArray || !ok {
			return x
		}
		out := make([]value, len(list))
		for i, el := range list {
			if out[i] = conv(el); out[i].open() {
				return out[i]
			}
		}
		return value{kind: vArray, any: out}
	}, nil
}

// comparison is a strict operator over two values that are not NULL.
type comparison func(a, b *value) value

var (
	intComparison  = regexp.MustCompile(`^int(?:2|4|8|24|42|28|82|48|84)(eq|ne|lt|le|gt|ge)$`)
	textComparison = regexp.MustCompile(`^(?:text|uuid_|enum_|bool)(eq|ne|lt|le|gt|ge)$`)
)

// compare returns the comparison that an operator's function makes.
func (v *evaluator) compare(e *expr) (comparison, error) {
	f, err := v.function(e.fn)
	if err != nil {
		return nil, err
	}
	if m := intComparison.FindStringSubmatch(f.Source); f.Builtin && m != nil {
		if m[1] == "eq" || m[1] == "ne" {
			want := m[1] == "eq"
			return func(a, b *value) value { return truth((a.n == b.n) == want) }, nil
		}
		test := ordered(m[1])
		return func(a, b *value) value {
			switch {
			case a.n < b.n:
				return truth(test(-1))
			case a.n > b.n:
				return truth(test(1))
			}
			return truth(test(0))
		}, nil
	}
	if m := textComparison.FindStringSubmatch(f.Source); f.Builtin && m != nil {
		test := ordered(m[1])
		equality := m[1] == "eq" || m[1] == "ne"
		want := m[1] == "eq"
		switch {
		case f.Source == "booleq" || f.Source == "boolne":
			return func(a, b *value) value { return truth((a.n == b.n) == want) }, nil
		case strings.HasPrefix(f.Source, "uuid"), strings.HasPrefix(f.Source, "enum") && equality,
			f.Source == "texteq" || f.Source == "textne":
			if !deterministic[e.coll] {
				return nil, refuse("a collation of its own")
			}
			if equality {
				return func(a, b *value) value { return truth((a.s == b.s) == want) }, nil
			}
			return func(a, b *value) value { return truth(test(strings.Compare(a.s, b.s))) }, nil
		}
	}
	return nil, refuse("the operator behind %s", f.Name)
}

// deterministic are the collations under which equal is equal as bytes: none,
// the database's, C and POSIX.
var deterministic = map[uint32]bool{0: true, 100: true, 950: true, 951: true}

func ordered(name string) func(int) bool {
	switch name {
	case "eq":
		return func(c int) bool { return c == 0 }
	case "ne":
		return func(c int) bool { return c != 0 }
	case "lt":
		return func(c int) bool { return c < 0 }
	case "le":
		return func(c int) bool { return c <= 0 }
	case "gt":
		return func(c int) bool { return c > 0 }
	}
	return func(c int) bool { return c >= 0 }
}

// comparing is DISTINCT FROM, NULLIF, and ANY or ALL of an array.
func (v *evaluator) comparing(e *expr, args []evalFn) (evalFn, error) {
	cmp, err := v.compare(e)
	if err != nil {
		return nil, err
	}
	a, b := args[0], args[1]
	switch e.kind {
	case kDistinct:
		return func(n *env) value {
			x, y := a(n), b(n)
			switch {
			case x.open() || y.open():
				return x.or(y)
			case x.kind == vNull || y.kind == vNull:
				return truth(x.kind != y.kind)
			}
			return truth(cmp(&x, &y) != yes)
		}, nil
	case kNullIf:
		return func(n *env) value {
			x, y := a(n), b(n)
			switch {
			case x.open() || y.open():
				return x.or(y)
			case x.kind == vNull || y.kind == vNull || cmp(&x, &y) != yes:
				return x
			}
			return null
		}, nil
	}
	all := e.all
	return func(n *env) value {
		x, y := a(n), b(n)
		if x.open() || y.open() || y.kind == vNull {
			return x.or(y)
		}
		list, ok := y.any.([]value)
		if !ok {
			return unsure
		}
		return among(x, list, all, cmp)
	}, nil
}

// or is what a function of both is when one of them is not definite, or y NULL.
func (x value) or(y value) value {
	switch {
	case x.kind == vUnsure || y.kind == vUnsure:
		return unsure
	case x.kind == vAny || y.kind == vAny:
		return some
	}
	return null
}

// among is x op ANY (list), or ALL.
func among(x value, list []value, all bool, cmp comparison) value {
	if len(list) == 0 {
		return truth(all)
	}
	if x.kind == vNull {
		return null
	}
	unknown := false
	for _, el := range list {
		if el.kind == vNull {
			unknown = true
			continue
		}
		if r := cmp(&x, &el); (r == yes) != all {
			return r
		}
	}
	if unknown {
		return null
	}
	return truth(all)
}

// call is an operator or a function of the server's own, all of them strict.
func (v *evaluator) call(e *expr, args []evalFn) (evalFn, error) {
	f, err := v.function(e.fn)
	if err != nil {
		return nil, err
	}
	if !f.Builtin {
		return nil, refuse("the function %s.%s", f.Schema, f.Name)
	}
	if len(args) == 1 {
		switch f.Source {
		case "i2toi4", "int48", "int28":
			return args[0], nil
		case "booltext":
			return v.viaIO(e, args[0])
		case "jsonb_bool":
			return func(n *env) value {
				x := args[0](n)
				b, ok := x.any.(bool)
				if x.kind == vNull || x.open() {
					return x
				}
				if !ok {
					return unsure
				}
				return truth(b)
			}, nil
		}
		return nil, refuse("the function %s", f.Name)
	}
	if len(args) != 2 {
		return nil, refuse("the function %s", f.Name)
	}
	var do comparison
	if j := jsonFunctions[f.Source]; j != nil {
		do = j
	} else if do, err = v.compare(e); err != nil {
		return nil, err
	}
	x, y := v.reference(e.args[0], args[0]), v.reference(e.args[1], args[1])
	return func(n *env) value {
		a, b := x(n), y(n)
		switch {
		case a.kind == vUnsure || b.kind == vUnsure:
			return unsure
		case a.kind == vNull || b.kind == vNull:
			return null
		case a.kind == vAny || b.kind == vAny:
			return some
		}
		return do(a, b)
	}, nil
}

// reference returns where an argument's value is, which for a column, a slot and a
// constant needs no copy.
func (v *evaluator) reference(e *expr, fn evalFn) func(*env) *value {
	e = plainArg(e)
	switch e.kind {
	case kVar:
		at := e.att - 1
		return func(n *env) *value { return &n.row[at] }
	case kSlot:
		at := e.att
		return func(n *env) *value { return &n.slots[at] }
	case kConst:
		c := fn(nil)
		return func(*env) *value { return &c }
	}
	at := v.scratch
	v.scratch++
	return func(n *env) *value {
		n.scratch[at] = fn(n)
		return &n.scratch[at]
	}
}

// setLink is a sub-select over the texts of a jsonb array, such as array(select
// jsonb_array_elements_text(…)) or x in (select …).
func (v *evaluator) setLink(e *expr) (evalFn, error) {
	q := e.query
	if q.where != nil || q.limit != nil || q.aggregate || q.distinct || len(q.group) > 0 || len(q.targets) != 1 || len(q.from) > 1 {
		return nil, refuse("a sub-select")
	}
	// Inside the sub-select one refers to what is around it by one level more.
	var source *expr
	bad := false
	target := q.targets[0].replace(func(x *expr, depth int) *expr {
		switch {
		case depth > 0:
			bad = true
		case x.kind == kFunc && x.not && len(q.from) == 0, x.kind == kVar && x.level == 0 && len(q.from) == 1:
			set := x
			if from := q.from; x.kind == kVar && from[0].rel > 0 {
				set = q.rels[from[0].rel-1].call
			}
			if set == nil || source != nil || x.kind == kVar && x.att != 1 {
				bad = true
				return x
			}
			source = set
			return &expr{kind: kTest, typ: x.typ, mod: -1}
		case x.kind == kVar:
			c := *x
			c.level--
			return &c
		}
		return nil
	})
	if bad || source == nil || source.kind != kFunc || len(source.args) != 1 {
		return nil, refuse("a sub-select")
	}
	f, err := v.function(source.fn)
	switch {
	case err != nil:
		return nil, err
	case !f.Builtin || f.Source != "jsonb_array_elements_text":
		return nil, refuse("a sub-select")
	}
	arg, err := v.fn(source.args[0].shift(-1))
	if err != nil {
		return nil, err
	}
	each, err := v.fn(target)
	if err != nil {
		return nil, err
	}
	elements := func(n *env) value { return setOf(n, arg, each) }
	switch e.link {
	case linkArray:
		return elements, nil
	case linkAny, linkAll:
		return v.setTest(e, elements)
	}
	return nil, refuse("a sub-select")
}

// setOf evaluates each over the elements of a jsonb array; NULL has none.
func setOf(n *env, arg, each evalFn) value {
	x := arg(n)
	out := []value{}
	switch list, ok := x.any.([]any); {
	case x.kind == vNull:
	case x.kind == vAny:
		return x
	case !ok:
		return unsure // an error, or unsure already
	default:
		outer := n.set
		defer func() { n.set = outer }()
		for _, v := range list {
			n.set = jsonText(v)
			el := each(n)
			if el.open() {
				return el
			}
			out = append(out, el)
		}
	}
	return value{kind: vArray, any: out}
}

// setTest is x op ANY (set).
func (v *evaluator) setTest(e *expr, elements evalFn) (evalFn, error) {
	test := e.args[0]
	for test.kind == kRelabel {
		test = test.args[0]
	}
	if test.kind != kOp || len(test.args) != 2 {
		return nil, refuse("a sub-select")
	}
	right := test.args[1]
	for right.kind == kRelabel {
		right = right.args[0]
	}
	if right.kind != kTest {
		return nil, refuse("a sub-select")
	}
	cmp, err := v.compare(test)
	if err != nil {
		return nil, err
	}
	x, err := v.fn(test.args[0])
	if err != nil {
		return nil, err
	}
	all := e.link == linkAll
	return func(n *env) value {
		set, a := elements(n), x(n)
		list, ok := set.any.([]value)
		switch {
		case a.open() || set.open():
			return a.or(set)
		case !ok:
			return unsure
		}
		return among(a, list, all, cmp)
	}, nil
}
