package doctor

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/sluice-dev/sluice"
)

// checkSignIn gets a user's token, as the app does.
func (v *visit) checkSignIn(ctx context.Context) []Finding {
	switch {
	case v.cfg.Token != "":
		v.userToken = v.cfg.Token
		return []Finding{skip("a token was given")}
	case v.cfg.Email == "":
		return []Finding{skip("no user was given (--email with a password, or --token)")}
	}
	body, err := json.Marshal(map[string]any{"email": v.cfg.Email, "password": string(v.cfg.Password), "gotrue_meta_security": map[string]any{}})
	if err != nil { // strings
		return []Finding{fail(CodeSignIn, "The address cannot be sent: %v", err)}
	}
	header := v.keyed()
	header["Content-Type"] = "application/json;charset=UTF-8"
	header["X-Supabase-Api-Version"] = "2024-01-01"
	a, err := v.send(ctx, http.MethodPost, "/auth/v1/token?grant_type=password", header, body)
	if err != nil {
		return []Finding{v.noAnswer(err)}
	}
	var session struct {
		AccessToken sluice.Secret `json:"access_token"`
	}
	if a.status == http.StatusOK && json.Unmarshal(a.body, &session) == nil && session.AccessToken != "" {
		v.userToken = session.AccessToken
		v.hide.add(v.userToken)
		return []Finding{ok("signed in")}
	}
	if a.refusal() != "" {
		return []Finding{v.judgeRefusal(a, "Auth")}
	}
	f := fail(CodeSignIn, "Auth does not sign the user in: %s", a.message()).evidence("%s", a).
		remedy("Look at Auth's log.")
	switch a.code() {
	case "invalid_credentials", "invalid_grant":
		f = f.remedy("Address or password is wrong for this project; after a database reset users have to be made again.")
	case "email_not_confirmed":
		f = f.remedy("Confirm the address, or set [auth.email] enable_confirmations = false in development.")
	}
	return []Finding{f}
}

// checkToken looks at the user's token, and whether REST takes it.
func (v *visit) checkToken(ctx context.Context) []Finding {
	if v.userToken == "" {
		return []Finding{skip("no user")}
	}
	j, isJWT := readJWT(v.userToken)
	now := v.cfg.Now()
	switch {
	case !isJWT:
		return []Finding{fail(sluice.CodeMalformedJWT, "The user's token is not a JWT").evidence("%d characters, not three parts of base64url and JSON", len(v.userToken))}
	case j.Role == "" || j.Exp == 0:
		return []Finding{fail(sluice.CodeInvalidJWTToken, "The user's token lacks role or exp, both of which Realtime requires").evidence("its claims: role %q, exp %.0f", j.Role, j.Exp).
			remedy("Send the session's access_token, or mint tokens with both claims.")}
	case !j.expires().After(now):
		return []Finding{fail(sluice.CodeInvalidJWTToken, "The user's token has expired %s ago", now.Sub(j.expires()).Round(time.Second)).
			evidence("exp is %s, now is %s", j.expires().UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339)).
			remedy("The session is not refreshed: keep autoRefreshToken on, call supabase.auth.startAutoRefresh() when the app comes to the front, and upgrade supabase-js; realtime gets the new token by itself then.")}
	}
	v.userRole = j.Role
	keys, findings := v.signer(ctx, j)
	if findings != nil {
		return findings
	}
	header := v.keyed()
	header["Authorization"] = "Bearer " + string(v.userToken)
	a, err := v.send(ctx, http.MethodGet, probeTable, header, nil)
	if err != nil {
		return []Finding{v.noAnswer(err)}
	}
	if !a.reachedREST() {
		f := v.judgeRefusal(a, "REST")
		switch f.Code {
		case sluice.CodeJwtSignatureError, sluice.CodeJwtSignerError:
			f = v.disagreement(f, j, keys)
		}
		return []Finding{f}
	}
	return []Finding{ok("role %s, signed with %s, valid for %s", j.Role, j.Alg, j.expires().Sub(now).Round(time.Second))}
}

// signer looks for the token's key among those that Auth publishes. A shared
// secret is never published.
func (v *visit) signer(ctx context.Context, j jwt) (kids []string, findings []Finding) {
	a, err := v.send(ctx, http.MethodGet, "/auth/v1/.well-known/jwks.json", v.keyed(), nil)
	if err != nil || a.status != http.StatusOK {
		return nil, nil // a stack without it has a shared secret alone
	}
	var set struct{ Keys []struct{ Kid string } }
	if json.Unmarshal(a.body, &set) != nil {
		return nil, nil
	}
	for _, k := range set.Keys {
		kids = append(kids, k.Kid)
	}
	if j.Alg == "HS256" || slices.Contains(kids, j.Kid) {
		return kids, nil
	}
	f := fail(sluice.CodeJwtSignerError, "The user's token is signed by a key that Auth does not publish").
		evidence("the token has alg %s, kid %q; GET /auth/v1/.well-known/jwks.json lists %q", j.Alg, j.Kid, kids).
		remedy("Sign in again: the token comes from before a change of the signing keys, or from another project.")
	return kids, []Finding{f}
}

// disagreement: the services verify with different keys.
func (v *visit) disagreement(f Finding, j jwt, kids []string) Finding {
	f.Text = "The user's token is refused although the API key is accepted: the services do not share one set of keys"
	f.Rule, f.Link = 23, causes[sluice.CodeJwtSignerError].link
	f.Evidence += "; the token has alg " + j.Alg + ", kid " + j.Kid
	if len(kids) > 0 {
		f.Evidence += ", which Auth publishes"
	}
	return f.remedy("Give the same JWKS, or the same JWT secret, to Auth, REST and Realtime; upgrade the Supabase CLI to 2.71.2 or newer, where users' tokens are ES256 for all of them, and sign in again.")
}
