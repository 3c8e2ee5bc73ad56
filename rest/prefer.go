package rest

import (
	"net/http"
	"slices"
	"strings"
)

// prefer is the Prefer header.
type prefer struct {
	ret, count, resolution, missing, tx, handling, timezone string
	maxAffected                                             int64 // -1 when not given
}

// counts reports whether a total was asked for.
func (p *prefer) counts() bool {
	return p.count == "exact" || p.count == "planned" || p.count == "estimated"
}

// parsePrefer reads all Prefer headers; of a repeated preference the first holds.
func parsePrefer(h http.Header) (prefer, error) {
	p := prefer{maxAffected: -1}
	var invalid []string
	set := func(into *string, v string, allowed ...string) bool {
		if !slices.Contains(allowed, v) {
			return false
		}
		if *into == "" {
			*into = v
		}
		return true
	}
	for _, line := range h.Values("Prefer") {
		for part := range strings.SplitSeq(line, ",") {
			part = strings.TrimSpace(part)
			if part == "" {
				continue
			}
			k, v, _ := strings.Cut(part, "=")
			ok := false
			switch strings.TrimSpace(k) {
			case "return":
				ok = set(&p.ret, v, "minimal", "headers-only", "representation")
			case "count":
				ok = set(&p.count, v, "exact", "planned", "estimated", "none")
			case "resolution":
				ok = set(&p.resolution, v, "merge-duplicates", "ignore-duplicates")
			case "missing":
				ok = set(&p.missing, v, "default", "null")
			case "handling":
				ok = set(&p.handling, v, "strict", "lenient")
			case "tx":
				ok = set(&p.tx, v, "commit", "rollback")
			case "timezone":
				p.timezone, ok = v, true
			case "max-affected":
				if n, isInt := integer(v); isInt && n >= 0 {
					p.maxAffected, ok = n, true
				}
			}
			if !ok {
				invalid = append(invalid, part)
			}
		}
	}
	if p.handling == "strict" && len(invalid) > 0 {
		return p, fail(http.StatusBadRequest, "PGRST122", "Invalid preferences given with handling=strict").
			details("Invalid preferences: " + strings.Join(invalid, ", "))
	}
	if p.handling != "strict" {
		p.maxAffected = -1
	}
	return p, nil
}
