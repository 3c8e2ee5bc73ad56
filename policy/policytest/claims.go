package policytest

import (
	"encoding/json"
	"fmt"
	"strings"
)

// identity makes the i-th identity: plain users first, odd tokens among them.
func (g *gen) identity(i int) Identity {
	role := pick(g, "authenticated", "authenticated", "authenticated", "authenticated", "anon", "pt_base", "pt_member", "pt_noinherit", "pt_bypass", "pt_owner", "service_role", "PT Odd", strangerRole)
	switch {
	case i == 0:
		role = "anon"
	case i < 4:
		role = "authenticated"
	case g.chance(40):
		role = "no_such_role"
	}
	m := []string{`"role":` + quote(role)}
	odd := i > 5 && g.chance(3)
	switch {
	case i == 0, role == "anon" && g.chance(2):
	case odd && g.chance(2):
		m = append(m, pick(g, `"sub":"no uuid"`, `"sub":""`, `"sub":5`, `"sub":null`, `"sub":["x"]`, `"sub":"{`+uids[0]+`}"`, `"sub":`+quote(strings.ToUpper(uids[1])),
			`"sub":`+quote(strings.ReplaceAll(uids[2], "-", "")), `"sub":" "`, `"sub":"\u0030`+uids[0][1:]+`"`))
	default:
		m = append(m, `"sub":`+quote(uids[g.IntN(len(uids))]))
	}
	if !g.chance(4) {
		m = append(m, `"email":`+pick(g, `"a@example.com"`, `"b@example.com"`, `"A@Example.com"`, `""`, `null`, `7`))
	}
	if !g.chance(5) {
		m = append(m, `"app_metadata":`+g.metadata(odd))
	}
	if g.chance(3) {
		m = append(m, `"user_metadata":{"nick":`+quote(texts[g.IntN(len(texts))])+`}`)
	}
	// A value that a column could have.
	if x := g.extras[g.IntN(len(g.extras))]; !g.chance(3) {
		m = append(m, `"v":`+quote(x.typ.literals[g.IntN(len(x.typ.literals))]))
	}
	m = append(m, `"level":`+pick(g, `1`, `2`, `1.0`, `1e3`, `9007199254740993`, `"2"`, `true`, `null`, `-0`, `2147483648`, `[1]`, `"x"`))
	if odd {
		m = append(m, pick(g, `"role_name":"admin","role_name":"member"`, `"nested":{"a":{"b":{"c":[1,{"d":"deep"}]}}}`, `"u":"\u00e9\ud83d\ude00"`, `"esc":"q\"\\\/\n"`,
			`"nul":"\u0000"`, `"email":"a@example.com","email":"b@example.com"`, `"":""`, `"big":123456789012345678901234567890.123456789`))
	}
	payload := "{" + strings.Join(m, pick(g, ",", ", ")) + "}"
	return NewIdentity(fmt.Sprintf("u%d", i), payload)
}

func (g *gen) metadata(odd bool) string {
	if odd && g.chance(3) {
		return pick(g, `null`, `"text"`, `[]`, `{}`, `5`, `[{"org_id":"`+uids[0]+`"}]`)
	}
	var m []string
	if !g.chance(5) {
		v := quote(uids[g.IntN(3)])
		if odd {
			v = pick(g, `"no uuid"`, `null`, `""`, `12`, `{"a":1}`)
		}
		m = append(m, `"org_id":`+v)
	}
	if !g.chance(4) {
		m = append(m, `"roles":`+pick(g, `["admin"]`, `["member","admin"]`, `[]`, `"admin"`, `{"admin":false}`, `null`, `["Admin"]`, `[["admin"]]`))
	}
	if !g.chance(4) {
		var ids []string
		for range g.IntN(4) {
			v := g.team.literals[g.IntN(len(g.team.literals))]
			if (g.team.name == "integer" || g.team.name == "bigint") && g.chance(2) {
				ids = append(ids, v)
			} else {
				ids = append(ids, quote(v))
			}
		}
		v := "[" + strings.Join(ids, ",") + "]"
		if g.chance(8) {
			v = pick(g, `null`, `"1"`, `{"1":1}`, `[null]`, `["zz"]`, `[1.0]`)
		}
		m = append(m, `"team_ids":`+v)
	}
	if g.chance(2) {
		m = append(m, `"teams_csv":`+pick(g, `"1,2"`, `"3"`, `""`, `"1, 2"`, `"x,y"`, quote(uids[0]+","+uids[1])))
	}
	if g.chance(2) {
		m = append(m, `"is_admin":`+pick(g, `true`, `false`, `"true"`, `"yes"`, `1`, `null`))
	}
	return "{" + strings.Join(m, ",") + "}"
}

func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // strings always encode
	}
	return string(b)
}
