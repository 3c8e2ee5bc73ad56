// Package auth serves /auth/v1 as Supabase Auth does: users, sessions, refresh
// tokens and the access tokens that REST and Realtime accept. It keeps its state
// in schema auth, on a pool that logs in as supabase_auth_admin, and none in the
// process but rate buckets, so that any node answers any request.
//
// A request runs in one line: Server.ServeHTTP finds the route, the route's
// function reads caller (caller.go) and body (request.go), decides, and either
// writes its answer or returns an error, which errors.go alone turns into one of
// the two formats that clients know. SQL stands in sql/*.sql, one file a statement.
//
// Who calls is decided by the gateway, which verifies key and token; auth reads
// sluice.Identity from the context. Mail is written here and delivered by a Mailer:
// SMTP, or the development's catcher. The project's own functions are asked at a few
// points; see hook.go. A provider, a captcha's service and Twilio are asked by one
// client, outbound.go. What is not served (passkeys, single sign-on, the OAuth server)
// answers as a disabled feature does; see later.go.
package auth
