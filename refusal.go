package sluice

import (
	"fmt"
	"net/http"
)

// Code names a refusal. Codes are stable: they appear in response headers
// (X-Sluice-Code), in join replies, in the log, in the doctor and the console.
// Where Supabase Realtime has a code for the situation, ours is the same word.
type Code string

// Headers on every refused HTTP response.
const (
	HeaderRefusedBy = "X-Sluice-Refused-By" // gateway, auth, rest or realtime
	HeaderCode      = "X-Sluice-Code"
)

// Refusal is a refused request, join or message. It is an error. Text and
// Remedy are public; Cause is for the log only.
type Refusal struct {
	Code   Code
	Status int    // HTTP status where the refusal is answered over HTTP
	Text   string // one sentence: what is wrong; the original's text where it has one
	Remedy string // one sentence: how to mend it
	Cause  error  // private; never sent to a client
}

// Error returns "Code: text", the form of a join reply's reason.
func (r *Refusal) Error() string { return string(r.Code) + ": " + r.Text }

// Unwrap returns the private cause.
func (r *Refusal) Unwrap() error { return r.Cause }

// Explain returns Error with the remedy appended, for explain mode.
func (r *Refusal) Explain() string {
	if r.Remedy == "" {
		return r.Error()
	}
	return r.Error() + " | " + r.Remedy
}

// WithCause returns a copy of r with a private cause.
func (r *Refusal) WithCause(err error) *Refusal {
	c := *r
	c.Cause = err
	return &c
}

// WithText returns a copy of r with another text.
func (r *Refusal) WithText(format string, args ...any) *Refusal {
	c := *r
	c.Text = fmt.Sprintf(format, args...)
	return &c
}

// WithRemedy returns a copy of r with another remedy.
func (r *Refusal) WithRemedy(format string, args ...any) *Refusal {
	c := *r
	c.Remedy = fmt.Sprintf(format, args...)
	return &c
}

// Refusal codes.
const (
	// keys
	CodeMissingAPIKey   Code = "MissingAPIKey"
	CodeInvalidAPIKey   Code = "InvalidAPIKey"
	CodeDuplicateAPIKey Code = "DuplicateAPIKey"
	CodeNotAnAPIKey     Code = "NotAnAPIKey"

	// tokens; the words of Supabase Realtime
	CodeMalformedJWT      Code = "MalformedJWT"
	CodeInvalidJWTToken   Code = "InvalidJWTToken"
	CodeJwtSignatureError Code = "JwtSignatureError"
	CodeJwtSignerError    Code = "JwtSignerError"

	// gateway
	CodeRouteNotFound   Code = "RouteNotFound"
	CodeNotServed       Code = "NotServed"
	CodeMethodNotServed Code = "MethodNotServed"
	CodeBodyTooLarge    Code = "BodyTooLarge"
	CodeURLTooLong      Code = "URLTooLong"
	CodeBadRequest      Code = "BadRequest"
	CodeInternal        Code = "InternalError"

	// REST
	CodeTooManyBodies Code = "RequestBodiesLimitReached"
	CodeSlowSender    Code = "SlowSender"

	// socket and channel
	CodeUnsupportedVersion Code = "UnsupportedProtocolVersion"
	CodeUpgradeRequired    Code = "UpgradeRequired"
	CodeTopicNameRequired  Code = "TopicNameRequired"
	CodeRestarting         Code = "RealtimeRestarting"
	CodeTooManyChannels    Code = "ChannelRateLimitReached"
	CodeTooManyConns       Code = "ConnectionRateLimitReached"
	CodeTooManyHandshakes  Code = "JoinsRateLimitReached"
	CodeTooManyJoins       Code = "ClientJoinRateLimitReached"
	CodeTooManyEvents      Code = "MessagePerSecondRateLimitReached"
	CodeTooManyPresence    Code = "PresenceRateLimitReached"
	CodePresenceCalls      Code = "ClientPresenceRateLimitReached"
	CodeTooManyChanges     Code = "ChangesPerSecondRateLimitReached"
	CodeTooManyRequests    Code = "RequestRateLimitReached"
	CodeUnableToConnect    Code = "UnableToConnectToProject"
	CodeInitializing       Code = "InitializingProjectConnection"
	CodeUnauthorized       Code = "Unauthorized"
	CodePrivateOnly        Code = "PrivateOnly"
	CodeQueryCanceled      Code = "QueryCanceled"
	CodeMissingPartition   Code = "MissingPartition"
	CodePoolExhausted      Code = "IncreaseConnectionPool"
	CodeLackOfConnections  Code = "DatabaseLackOfConnections"
	CodeUnknownOnChannel   Code = "UnknownErrorOnChannel"
	CodeSlowReader         Code = "SlowReader"
	CodeUnableToReplay     Code = "UnableToReplayMessages"

	// subscriptions that can never receive anything
	CodeTableNotPublished  Code = "TableNotPublished"
	CodeNoSelectGrant      Code = "NoSelectGrant"
	CodeNoSelectPolicy     Code = "NoSelectPolicy"
	CodeNoPolicyForRole    Code = "NoPolicyForRole"
	CodeJoinedWithoutToken Code = "JoinedWithoutToken"
	CodePolicyError        Code = "RlsPolicyError"
	CodePolicyTimeout      Code = "RlsPolicyTimeout"
	CodeSubscriptionParams Code = "InvalidSubscription"

	// after a cut
	CodeChangesResumed Code = "ChangesResumed"
	CodeChangesGap     Code = "ChangesGap"
)

var refusals = map[Code]Refusal{
	CodeMissingAPIKey: {
		Status: http.StatusUnauthorized,
		Text:   "API key is missing",
		Remedy: "Send the publishable key as header apikey, or as query parameter apikey on the WebSocket URL; `sluice status` prints it.",
	},
	CodeInvalidAPIKey: {
		Status: http.StatusUnauthorized,
		Text:   "The API key is not a key of this project",
		Remedy: "Compare the key in your environment file with `sluice status`; restart the app's dev server after changing it.",
	},
	CodeDuplicateAPIKey: {
		Status: http.StatusUnauthorized,
		Text:   "The request carries different API keys in the same place",
		Remedy: "Send the apikey header or parameter once.",
	},
	CodeNotAnAPIKey: {
		Status: http.StatusUnauthorized,
		Text:   "The value sent as API key is not an API key",
		Remedy: "Use the publishable key (sb_publishable_…) or the anon JWT, not a database password, JWT secret or S3 key; `sluice status` prints the keys.",
	},

	CodeMalformedJWT: {
		Status: http.StatusUnauthorized,
		Text:   "The token provided is not a valid JWT",
		Remedy: "Send the session's access_token; it has three parts divided by dots.",
	},
	CodeInvalidJWTToken: {
		Status: http.StatusUnauthorized,
		Text:   "Token has expired",
		Remedy: "Refresh the session and send the new access_token; check the clock of the machine that issued it.",
	},
	CodeJwtSignatureError: {
		Status: http.StatusUnauthorized,
		Text:   "Failed to validate JWT signature",
		Remedy: "The token was signed with another secret or key: sign in again against this project, and compare JWT_SECRET with `sluice status -o env`.",
	},
	CodeJwtSignerError: {
		Status: http.StatusUnauthorized,
		Text:   "Failed to generate JWT signer, check your JWT secret or JWKS configuration",
		Remedy: "The token names an algorithm or key id that this project does not have: sign in again, or add the key to signing_keys_path.",
	},

	CodeRouteNotFound: {
		Status: http.StatusNotFound,
		Text:   "no Route matched with those values",
		Remedy: "The project URL has no path of its own; clients add /auth/v1, /rest/v1 and /realtime/v1/websocket to it.",
	},
	CodeNotServed: {
		Status: http.StatusNotImplemented,
		Text:   "This service is not part of Sluice",
		Remedy: "Configure an upstream for it, or use the Supabase service directly.",
	},
	CodeMethodNotServed: {
		Status: http.StatusMethodNotAllowed,
		Text:   "The method is not allowed on this path",
		Remedy: "See the Allow header.",
	},
	CodeBodyTooLarge: {
		Status: http.StatusRequestEntityTooLarge,
		Text:   "The request body is too large",
		Remedy: "Send less at once; the limits stand in docs/config.md.",
	},
	CodeURLTooLong: {
		Status: http.StatusRequestURITooLong,
		Text:   "The URL is too long",
		Remedy: "Use fewer or shorter filters, or a function called with POST.",
	},
	CodeBadRequest: {
		Status: http.StatusBadRequest,
		Text:   "The request makes no sense",
		Remedy: "See the message.",
	},
	CodeInternal: {
		Status: http.StatusInternalServerError,
		Text:   "Something went wrong inside Sluice",
		Remedy: "The log has a line with this request's id; please report it.",
	},

	CodeTooManyBodies: {
		Status: http.StatusServiceUnavailable,
		Text:   "Too many large request bodies are in work at once",
		Remedy: "Send it again in a moment, or less at once; SLUICE_REST_BODIES_MB is the memory for all of them, see docs/config.md.",
	},
	CodeSlowSender: {
		Status: http.StatusRequestTimeout,
		Text:   "The request body comes too slowly",
		Remedy: "Send less at once, or over a faster connection: a body of more than 64 KiB must come at 64 KiB a second on the whole.",
	},

	CodeUnsupportedVersion: {
		Status: http.StatusForbidden,
		Text:   "The protocol version asked for is not served",
		Remedy: "Use vsn=1.0.0 or vsn=2.0.0.",
	},
	CodeUpgradeRequired: {
		Status: http.StatusBadRequest,
		Text:   "This URL is a WebSocket; the request asked for no upgrade",
		Remedy: "Open it with a WebSocket client. If one was used, a proxy in between drops the Upgrade and Connection headers.",
	},
	CodeTopicNameRequired: {
		Status: http.StatusBadRequest,
		Text:   "You must provide a topic name",
		Remedy: "Give the channel a name: supabase.channel('room').",
	},
	CodeRestarting: {
		Status: http.StatusServiceUnavailable,
		Text:   "Realtime is restarting, please standby",
		Remedy: "The client joins again by itself.",
	},
	CodeTooManyChannels: {
		Status: http.StatusTooManyRequests,
		Text:   "Too many channels",
		Remedy: "Leave channels that are no longer used with supabase.removeChannel().",
	},
	CodeTooManyConns: {
		Status: http.StatusTooManyRequests,
		Text:   "Too many connected users",
		Remedy: "Close sockets that are no longer used, or raise the limit on connections; see docs/config.md.",
	},
	CodeTooManyHandshakes: {
		Status: http.StatusTooManyRequests,
		Text:   "Too many joins per second",
		Remedy: "The client connects again by itself; raise the limit on joins if this is the usual load, see docs/config.md.",
	},
	CodeTooManyJoins: {
		Status: http.StatusTooManyRequests,
		Text:   "Too many joins per second",
		Remedy: "The client connects and joins again by itself; keep a channel open instead of joining for each message, or raise the limit on joins, see docs/config.md.",
	},
	CodeTooManyEvents: {
		Status: http.StatusTooManyRequests,
		Text:   "Too many messages per second",
		Remedy: "Send less often, split the topic so that fewer receive each message, or raise the limit on events, see docs/config.md; then subscribe again.",
	},
	CodeTooManyPresence: {
		Status: http.StatusTooManyRequests,
		Text:   "Too many presence messages per second",
		Remedy: "Track less often or in smaller topics, or raise the limit on presence, see docs/config.md; then subscribe again.",
	},
	CodePresenceCalls: {
		Status: http.StatusTooManyRequests,
		Text:   "Client presence rate limit exceeded",
		Remedy: "Call track() when the state changes, not for each movement: those are broadcasts; then subscribe again.",
	},
	CodeTooManyChanges: {
		Status: http.StatusTooManyRequests,
		Text:   "Too many database changes per second; changes are not delivered until the rate falls",
		Remedy: "Read the table again, narrow the subscription with a filter, or raise the limit on events, see docs/config.md.",
	},
	CodeTooManyRequests: {
		Status: http.StatusTooManyRequests,
		Text:   "Too many requests",
		Remedy: "Send several messages in one request, or raise the limit on events, see docs/config.md.",
	},
	CodeUnableToConnect: {
		Status: http.StatusServiceUnavailable,
		Text:   "Realtime was unable to connect to the project database",
		Remedy: "PostgreSQL does not answer; the client joins again by itself once it does. `.sluice/postgres.log` says why it does not.",
	},
	CodeInitializing: {
		Status: http.StatusServiceUnavailable,
		Text:   "Realtime is initializing the project connection",
		Remedy: "The client joins again by itself.",
	},
	CodeUnauthorized: {
		Status: http.StatusForbidden,
		Text:   "You do not have permissions to read from this Channel topic",
		Remedy: "Add a SELECT policy on realtime.messages for this role and topic, and make sure that the user's token is sent before the join.",
	},
	CodePrivateOnly: {
		Status: http.StatusForbidden,
		Text:   "This project only allows private channels",
		Remedy: "Join with config: { private: true }, and give realtime.messages a SELECT policy for the topic.",
	},
	CodeQueryCanceled: {
		Status: http.StatusServiceUnavailable,
		Text:   "canceling statement due to statement timeout",
		Remedy: "A policy on realtime.messages takes too long: look at its plan as this role, and index the columns that it compares.",
	},
	CodeMissingPartition: {
		Status: http.StatusServiceUnavailable,
		Text:   "Realtime was unable to find the expected messages partition",
		Remedy: "realtime.messages has no partition for today and Sluice could not make it; the log has the error.",
	},
	CodePoolExhausted: {
		Status: http.StatusServiceUnavailable,
		Text:   "Please increase your connection pool size",
		Remedy: "More private channels ask for their policies at once than the pool can answer in time; the client tries again by itself.",
	},
	CodeLackOfConnections: {
		Status: http.StatusServiceUnavailable,
		Text:   "Database can't accept more connections, Realtime won't connect",
		Remedy: "Raise max_connections of PostgreSQL, or the connection limit of the role authenticator or of the database.",
	},
	CodeUnknownOnChannel: {
		Status: http.StatusInternalServerError,
		Text:   "The join payload has a form that is not understood",
		Remedy: "config, config.broadcast and each entry of config.postgres_changes must be objects.",
	},
	CodeSlowReader: {
		Status: http.StatusServiceUnavailable,
		Text:   "The connection did not read fast enough and its queue is full",
		Remedy: "The client reconnects by itself; subscribe to less, or do less work in the message callback.",
	},
	CodeUnableToReplay: {
		Status: http.StatusServiceUnavailable,
		Text:   "Realtime was unable to replay messages",
		Remedy: "The client joins again by itself; the log has the cause.",
	},

	CodeTableNotPublished: {
		Status: http.StatusBadRequest,
		Text:   "The table is not in the publication supabase_realtime",
		Remedy: "Run: alter publication supabase_realtime add table SCHEMA.TABLE;",
	},
	CodeNoSelectGrant: {
		Status: http.StatusForbidden,
		Text:   "The role may not select from the table, so no change will arrive",
		Remedy: "Run: grant select on SCHEMA.TABLE to ROLE;",
	},
	CodeNoSelectPolicy: {
		Status: http.StatusForbidden,
		Text:   "Row level security is on and the table has no SELECT policy, so no change will arrive",
		Remedy: "Create a SELECT policy on the table.",
	},
	CodeNoPolicyForRole: {
		Status: http.StatusForbidden,
		Text:   "Row level security is on and no SELECT policy applies to this role, so no change will arrive",
		Remedy: "Send the user's access_token before the join (await supabase.realtime.setAuth()), or create a SELECT policy for this role.",
	},
	CodeJoinedWithoutToken: {
		Status: http.StatusUnauthorized,
		Text:   "The channel was joined before the client had looked for a session, and without one no change can arrive",
		Remedy: "The client joins again by itself; to spare the second join, await supabase.auth.getSession() before subscribe().",
	},
	CodePolicyError: {
		Status: http.StatusForbidden,
		Text:   "A policy of the table raised an error, which counts as no",
		Remedy: "Run the policy's expression as this role, which must exist and be granted to authenticator; the log has the error.",
	},
	CodePolicyTimeout: {
		Status: http.StatusServiceUnavailable,
		Text:   "The policies of the table take too long, and changes were not delivered",
		Remedy: "Read the table again; look at the policies' plan as this role, and index the columns that they compare.",
	},
	CodeSubscriptionParams: {
		Status: http.StatusBadRequest,
		Text:   "The postgres_changes parameters are not valid",
		Remedy: "See the message; a subscription needs a schema or a table, and filters have the form column=operator.value.",
	},
	CodeChangesResumed: {
		Status: http.StatusOK,
		Text:   "The subscription goes on where it was cut",
		Remedy: "Nothing is missing; what was sent last before the cut may have come twice.",
	},
	CodeChangesGap: {
		Status: http.StatusGone,
		Text:   "Changes were missed and are not kept any more",
		Remedy: "Load the rows anew: what was missed does not arrive.",
	},
}

// Refuse returns a new refusal with the table's status, text and remedy. An
// unknown code is a bug and answers InternalError.
func Refuse(code Code) *Refusal {
	r, ok := refusals[code]
	if !ok {
		r = refusals[CodeInternal]
		r.Cause = fmt.Errorf("refusal code %q is not in the table", code)
		code = CodeInternal
	}
	r.Code = code
	return &r
}

// Codes returns all refusal codes of the table, in no order; documentation and
// its test list them.
func Codes() []Code {
	out := make([]Code, 0, len(refusals))
	for c := range refusals {
		out = append(out, c)
	}
	return out
}
