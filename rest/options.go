package rest

import (
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-dev/sluice/schema"
)

// options are Config's as the database overrides them, with
// ALTER ROLE authenticator SET pgrst.db_… (spec rest 1.12).
type options struct {
	maxRows    int64 // 0 is no bound
	aggregates bool
	plans      bool
	txEnd      string
	preRequest string
	// targetNames: an embedded resource with an alias answers to its target's
	// name, too.
	targetNames bool
	// brief errors have neither details nor hint.
	brief   bool
	openAPI string // follow-privileges, ignore-privileges or disabled
	// rootSpec is a function whose result replaces the description of the schema.
	rootSpec  string
	security  bool   // the description has a section on keys
	serverURI string // the address that it names
}

// optionsOf reads the options in force. A value that makes no sense is as none.
func (s *Server) optionsOf(snap *schema.Snapshot) options {
	o := options{
		maxRows: int64(s.cfg.MaxRows), aggregates: s.cfg.Aggregates, plans: s.cfg.Plans, txEnd: s.cfg.TxEnd, preRequest: s.cfg.PreRequest,
		targetNames: true, openAPI: "follow-privileges",
	}
	if n, err := strconv.ParseInt(snap.Settings["db_max_rows"], 10, 64); err == nil && n >= 0 {
		o.maxRows = n
	}
	flag := func(name string, into *bool) {
		if v, ok := snap.Settings[name]; ok {
			*into = slices.Contains([]string{"true", "on", "yes", "1", "t"}, strings.ToLower(v))
		}
	}
	flag("db_aggregates_enabled", &o.aggregates)
	flag("db_plan_enabled", &o.plans)
	flag("url_use_legacy_target_names", &o.targetNames)
	flag("openapi_security_active", &o.security)
	o.brief = snap.Settings["client_error_verbosity"] == "minimal"
	if v := snap.Settings["openapi_mode"]; v == "ignore-privileges" || v == "disabled" {
		o.openAPI = v
	}
	o.rootSpec, o.serverURI = snap.Settings["db_root_spec"], snap.Settings["openapi_server_proxy_uri"]
	if v := snap.Settings["db_tx_end"]; slices.Contains(txEnds, v) {
		o.txEnd = v
	}
	if v, ok := snap.Settings["db_pre_request"]; ok {
		o.preRequest = v
	}
	return o
}

// txEnds are the values of Config.TxEnd.
var txEnds = []string{"commit", "commit-allow-override", "rollback", "rollback-allow-override"}

// rollsBack decides how a request's transaction ends, and forgets a preference
// that may not override it.
func (o *options) rollsBack(p *prefer) bool {
	end, override := strings.CutSuffix(o.txEnd, "-allow-override")
	if !override {
		p.tx = ""
	}
	if p.tx != "" {
		end = p.tx
	}
	return end == "rollback"
}

// noArguments calls a function that an option names. cast follows the call.
func noArguments(name string, cast fragment) *builder {
	b := &builder{}
	b.lit("SELECT ")
	schemaName, function, ok := strings.Cut(name, ".")
	if ok {
		b.dotted(schemaName, function)
	} else {
		b.ident(name)
	}
	b.lit("()")
	b.lit(cast)
	return b
}
