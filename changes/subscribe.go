package changes

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
	"github.com/sluice-dev/sluice/policy"
)

// Subscribe implements sluice.ChangeFeed.
func (s *Service) Subscribe(ctx context.Context, req sluice.ChangeSubscription) (sluice.LiveSubscription, []*sluice.Refusal, error) {
	sub := &subscription{service: s, topic: req.Topic, asked: req.Bindings, deliver: req.Deliver, notify: req.Notify, claims: req.Claims, who: keyOf(req.Claims)}
	for _, b := range req.Bindings {
		p, err := parseParams(b.Params)
		if err != nil {
			return nil, nil, err
		}
		sub.bounds = append(sub.bounds, &binding{params: p, id: b.ID, sub: sub})
		if n := (tableName{p.schema, p.table}); !slices.Contains(sub.tables, n) {
			sub.tables = append(sub.tables, n)
		}
	}
	gen := s.catalog.generation()
	notices, err := s.validate(ctx, sub.bounds, req.Claims)
	if err != nil {
		return nil, nil, err
	}
	if err := s.cfg.Stream.Live(ctx); err != nil {
		return nil, nil, asRefusal(err)
	}
	s.ring.want(sub.tables)
	// The start is asked for first: what commits before it and is read after the
	// subscription has been added is not its; what commits after Subscribe has
	// returned is behind both.
	start, err := s.position(ctx)
	if err != nil {
		s.ring.release(sub.tables, time.Now())
		return nil, nil, asRefusal(err)
	}
	s.metrics.Subscriptions.Add(1)
	s.begin(sub, &req, start)
	if s.catalog.generation() != gen { // watchPublication may have looked without it
		signal(s.catalog.changed)
	}
	return sub, notices, nil
}

// position returns where the next commit will be, or behind it.
func (s *Service) position(ctx context.Context) (sluice.LSN, error) {
	var text string
	if err := s.cfg.Admin.QueryRow(ctx, "select pg_current_wal_insert_lsn()::text").Scan(&text); err != nil {
		return 0, pg.Wrap(err, "ask for the WAL position")
	}
	return sluice.ParseLSN(text)
}

// SetClaims implements sluice.LiveSubscription.
func (sub *subscription) SetClaims(ctx context.Context, c sluice.Claims) ([]*sluice.Refusal, error) {
	notices, err := sub.service.validate(ctx, sub.bounds, c)
	if err != nil {
		return nil, err
	}
	if sub.place != nil {
		key, durable, _ := keyOfPlace(c, sub.topic, sub.asked, sub.place.conn)
		sub.service.places.rekey(sub.place, key, durable)
	}
	sub.mu.Lock()
	sub.claims, sub.who = c, keyOf(c)
	sub.mu.Unlock()
	sub.service.index.touch(sub)
	return notices, nil
}

// asRefusal makes the error one that a client tries again after.
func asRefusal(err error) error {
	var r *sluice.Refusal
	switch {
	case errors.As(err, &r):
		return err
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, sluice.ErrTimeout):
		return sluice.Refuse(sluice.CodeInitializing).WithCause(err)
	}
	return sluice.Refuse(sluice.CodeUnableToConnect).WithCause(err)
}

// validate checks bindings against publication, catalog and privileges, as the
// original does when it stores them. notices tell what can never arrive.
func (s *Service) validate(ctx context.Context, bounds []*binding, claims sluice.Claims) ([]*sluice.Refusal, error) {
	var notices []*sluice.Refusal
	for _, b := range bounds {
		refs, err := s.catalog.match(ctx, b.schema, b.table)
		if err != nil {
			return nil, asRefusal(err)
		}
		if len(refs) == 0 {
			return nil, notPublished(&b.params)
		}
		silent := 0
		var why *sluice.Refusal
		for _, ref := range refs {
			t, err := s.catalog.table(ctx, ref.oid, s.catalog.generation())
			if notFound(err) {
				continue // dropped a moment ago
			}
			if err != nil {
				return nil, asRefusal(err)
			}
			r, err := s.catalog.role(ctx, t, claims.Role)
			if notFound(err) {
				return nil, exception(&b.params, "42704", "undefined_object", `role "`+claims.Role+`" does not exist`)
			}
			if err != nil {
				return nil, asRefusal(err)
			}
			if err := s.checkColumns(ctx, &b.params, t, r); err != nil {
				return nil, err
			}
			if n := silence(t, r, claims); n != nil {
				silent++
				why = n
			}
		}
		if silent == len(refs) && why != nil && !slices.ContainsFunc(notices, func(n *sluice.Refusal) bool { return n.Text == why.Text }) {
			notices = append(notices, why)
		}
	}
	return notices, nil
}

func notPublished(p *params) error {
	return &sluice.SubscribeError{
		Message: textUnable + "Please check Realtime is enabled for the given connect parameters: " + p.String(),
		Refusal: unpublished(p),
	}
}

func unpublished(p *params) *sluice.Refusal {
	r := sluice.Refuse(sluice.CodeTableNotPublished).WithText("No table %s.%s is in the publication supabase_realtime", p.schema, p.table)
	if p.schema != "*" && p.table != "*" {
		r = r.WithRemedy("Run: alter publication supabase_realtime add table %s.%s;", p.schema, p.table)
	}
	return r
}

// exception is an error that the original's database raises while it stores a
// subscription.
func exception(p *params, state, condition, message string) error {
	text := textUnable + "An exception happened so please check your connect parameters: " + p.String() +
		". Exception: ERROR " + state + " (" + condition + ") " + message
	return subscribeError(text)
}

func raised(p *params, format string, args ...any) error {
	return exception(p, "P0001", "raise_exception", fmt.Sprintf(format, args...))
}

// silence says why a role can never receive a change of a table, or nil.
func silence(t *table, r *tableRole, claims sluice.Claims) *sluice.Refusal {
	name, role := t.def.Schema+"."+t.def.Name, claims.Role
	switch {
	case !r.usage:
		return sluice.Refuse(sluice.CodeNoSelectGrant).WithText("Role %s has no USAGE on schema %s, so no change will arrive", role, t.def.Schema).
			WithRemedy("Run: grant usage on schema %s to %s;", t.def.Schema, role)
	case !r.any:
		return sluice.Refuse(sluice.CodeNoSelectGrant).WithText("Role %s may not select from %s, so no change will arrive", role, name).
			WithRemedy("Run: grant select on %s to %s;", name, role)
	case r.ask && len(t.def.Policies) == 0:
		return sluice.Refuse(sluice.CodeNoSelectPolicy).WithText("Row level security is on for %s and it has no SELECT policy, so no change will arrive", name).
			WithRemedy("Create one, for example: create policy \"read\" on %s for select to authenticated using (…);", name)
	case r.ask && r.sql != "" && r.plan != nil && r.plan.Bind(claims).Never():
		n := sluice.Refuse(sluice.CodeNoPolicyForRole).WithText("No SELECT policy of %s can show a row with these claims, so no change will arrive", name)
		if claims.Subject == "" {
			n = n.WithRemedy(remedySignIn)
		}
		return n
	case r.ask && r.sql == "":
		n := sluice.Refuse(sluice.CodeNoPolicyForRole).WithText("Row level security is on for %s and no SELECT policy applies to role %s, so no change will arrive", name, role)
		if claims.Subject == "" {
			n = n.WithRemedy(remedySignIn)
		}
		return n
	}
	return nil
}

const remedySignIn = "The channel was joined without a user's token: sign in and wait for the session (or await supabase.realtime.setAuth()) before subscribe()."

// maxIn is the original's bound of the list of an in filter.
const maxIn = 100

// checkColumns validates select and filters against one table.
func (s *Service) checkColumns(ctx context.Context, p *params, t *table, r *tableRole) error {
	for _, name := range p.columns {
		if i, ok := t.columns[name]; !ok || !r.readable[i] {
			return raised(p, "invalid column for select %s", name)
		}
	}
	for _, c := range p.filters {
		i, ok := t.columns[c.column]
		if !ok || !r.readable[i] {
			return raised(p, "invalid column for filter %s", c.column)
		}
		if err := s.checkCondition(ctx, p, &c, t, i); err != nil {
			return err
		}
	}
	return nil
}

// checkCondition lets PostgreSQL cast the value and look for the operator.
func (s *Service) checkCondition(ctx context.Context, p *params, c *condition, t *table, at int) error {
	typ := t.plain(at)
	switch {
	case c.op == policy.OpIs && !slices.Contains([]string{"null", "true", "false", "unknown"}, c.value):
		return raised(p, "invalid value for is filter: must be null, true, false, or unknown")
	case c.op == policy.OpIs && c.value != "null" && typ.oid != oidBool:
		return raised(p, "is %s filter requires a boolean column, got %s", c.value, typ.long)
	case c.op == policy.OpIs:
		return nil
	case c.op.IsPattern():
		return s.checkPattern(ctx, p, c, typ)
	case typ.oid == oidBytea:
		return checkHex(p, c)
	}
	var n int
	if err := s.cfg.Admin.QueryRow(ctx, policy.CastSQL(c.op, typ.value), c.value).Scan(&n); err != nil {
		return fromDatabase(p, err)
	}
	if n > maxIn {
		return raised(p, "too many values for `in` filter. Maximum %d", maxIn)
	}
	_, err := s.cfg.Admin.Exec(ctx, policy.CompareSQL(c.op, typ.value), nil, c.value)
	if pg.SQLState(err) == "42883" {
		return raised(p, "operator %s requires a comparable column type, got %s", c.op, typ.long)
	}
	return fromDatabase(p, err)
}

// checkPattern refuses types that are no text, and what is no pattern. A bytea is
// text to like: its digits.
func (s *Service) checkPattern(ctx context.Context, p *params, c *condition, typ *sqlType) error {
	regexp := c.op == policy.OpMatch || c.op == policy.OpIMatch
	switch typ.oid {
	case oidText, oidVarchar, oidName:
	case oidBpchar, oidBytea:
		if regexp {
			return raised(p, "operator %s requires a text-compatible column type, got %s", c.op, typ.long)
		}
	default:
		// An extension's type may have the operator.
		_, err := s.cfg.Admin.Exec(ctx, policy.CompareSQL(c.op, typ.value), nil, c.value)
		if typ.value.Operators == "" || pg.SQLState(err) == "42883" {
			return raised(p, "operator %s requires a text-compatible column type, got %s", c.op, typ.long)
		}
		if err != nil {
			return fromDatabase(p, err)
		}
	}
	if regexp {
		_, err := s.cfg.Admin.Exec(ctx, policy.RegexpSQL(), c.value)
		return fromDatabase(p, err)
	}
	if escapes := len(c.value) - len(strings.TrimRight(c.value, `\`)); escapes%2 == 1 {
		return exception(p, "22025", "invalid_escape_sequence", "LIKE pattern must not end with escape character")
	}
	return nil
}

// checkHex accepts the digits of bytea values, with or without \x.
func checkHex(p *params, c *condition) error {
	values := []string{c.value}
	if c.op == policy.OpIn {
		if values = c.list; values == nil {
			return exception(p, "22P02", "invalid_text_representation", `malformed array literal: "`+c.value+`"`)
		}
		if len(values) > maxIn {
			return raised(p, "too many values for `in` filter. Maximum %d", maxIn)
		}
	}
	for _, v := range values {
		if _, err := hex.DecodeString(strings.TrimPrefix(v, `\x`)); err != nil {
			return exception(p, "22P02", "invalid_text_representation", `invalid hexadecimal data: "`+v+`"`)
		}
	}
	return nil
}

// conditionNames are PostgreSQL's names of the SQLSTATEs that a filter's value
// or type leads to; the original prints them.
var conditionNames = map[string]string{
	"0A000": "feature_not_supported", "22001": "string_data_right_truncation", "22003": "numeric_value_out_of_range",
	"22007": "invalid_datetime_format", "22008": "datetime_field_overflow", "22009": "invalid_time_zone_displacement_value",
	"22015": "interval_field_overflow", "22021": "character_not_in_repertoire", "22023": "invalid_parameter_value",
	"22025": "invalid_escape_sequence", "2200N": "invalid_xml_content", "22P02": "invalid_text_representation",
	"22P03": "invalid_binary_representation", "22P05": "untranslatable_character", "23514": "check_violation",
	"42704": "undefined_object", "42804": "datatype_mismatch", "42846": "cannot_coerce", "54000": "program_limit_exceeded",
}

// fromDatabase turns an error over a condition into the original's; nil stays.
func fromDatabase(p *params, err error) error {
	if err == nil {
		return nil
	}
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || strings.HasPrefix(pe.Code, "57") || strings.HasPrefix(pe.Code, "53") {
		return asRefusal(err)
	}
	if pe.Code == "2201B" {
		return raised(p, "invalid regular expression for match filter: %s", strings.TrimPrefix(pe.Message, "invalid regular expression: "))
	}
	name := conditionNames[pe.Code]
	if name == "" {
		name = "raise_exception"
	}
	return exception(p, pe.Code, name, pe.Message)
}
