package doctor

import (
	"fmt"

	"github.com/sluice-dev/sluice"
)

// Codes of findings for which refusal.go has none: nobody refuses with them.
const (
	CodeBadURL           sluice.Code = "BadProjectURL"
	CodeSecretInBrowser  sluice.Code = "SecretKeyInBrowser"
	CodeWrongProject     sluice.Code = "KeyOfAnotherProject"
	CodeUnknownHost      sluice.Code = "UnknownHost"
	CodeUnreachable      sluice.Code = "Unreachable"
	CodeOneFamily        sluice.Code = "OneAddressFamilyOnly"
	CodeTLS              sluice.Code = "TLSError"
	CodeWrongPort        sluice.Code = "NotASupabaseGateway"
	CodeRedirect         sluice.Code = "Redirected"
	CodeTimeout          sluice.Code = "NoAnswer"
	CodeServiceDown      sluice.Code = "ServiceDown"
	CodeUpstreamName     sluice.Code = "UpstreamNameResolution"
	CodeClockSkew        sluice.Code = "ClockSkew"
	CodeCORS             sluice.Code = "CORSRefused"
	CodeKeyNotTranslated sluice.Code = "KeyNotTranslatedOnSocket"
	CodeKeyNotAllowed    sluice.Code = "KeyNotAllowed"
	CodeTenantNotFound   sluice.Code = "TenantNotFound"
	CodeCookiesTooLarge  sluice.Code = "CookiesTooLarge"
	CodeSocketRefused    sluice.Code = "SocketRefused"
	CodeSignIn           sluice.Code = "SignInRefused"
	CodeJoinRefused      sluice.Code = "JoinRefused"
	CodeNoReply          sluice.Code = "NoReply"
	CodeReplyMismatch    sluice.Code = "ReplyMismatch"
	CodeTokenDropped     sluice.Code = "ChannelClosedByToken"
	CodeRejoin           sluice.Code = "RejoinClosesChannel"
	CodeBroadcastLost    sluice.Code = "BroadcastLost"
	CodeBroadcastKey     sluice.Code = "BroadcastKeyNotTranslated"
	CodeBroadcastRefused sluice.Code = "BroadcastRefused"
	CodeBindings         sluice.Code = "BindingsMismatch"
	CodeSubscription     sluice.Code = "SubscriptionRefused"
	CodeChangeLost       sluice.Code = "ChangeDidNotArrive"
	CodeProbeRefused     sluice.Code = "ProbeRowRefused"
	CodeProbeStays       sluice.Code = "ProbeRowStays"
	CodeDatabase         sluice.Code = "DatabaseUnreachable"
	CodeWALLevel         sluice.Code = "WALLevel"
	CodeNoPublication    sluice.Code = "NoPublication"
	CodeNoTable          sluice.Code = "NoSuchTable"
	CodeIdentity         sluice.Code = "ReplicaIdentity"
	CodeSlot             sluice.Code = "ReplicationSlot"
	CodeNoPartition      sluice.Code = "NoMessagePartition"
	CodeNoMessagePolicy  sluice.Code = "NoChannelPolicy"
	CodePage             sluice.Code = "PageUnreachable"
	CodeCSP              sluice.Code = "CSPBlocksConnection"
	CodeMixedContent     sluice.Code = "MixedContent"
	CodeUpgradeInsecure  sluice.Code = "UpgradeInsecureRequests"
	CodeLoopbackHost     sluice.Code = "LoopbackFromAnotherDevice"
	CodeEnvDiffers       sluice.Code = "EnvironmentDiffers"
	CodeOldClient        sluice.Code = "ClientVersion"
	CodeNoWebSocket      sluice.Code = "NoNativeWebSocket"
)

// cause is what is known of a code beyond one visit: the number of the rule in
// docs/doctor.md, and a public thread.
type cause struct {
	rule int
	link string
}

const github = "https://github.com/supabase/"

// causes: several codes may come from one rule, and one code from several; then
// the check sets the rule itself.
var causes = map[sluice.Code]cause{
	CodeKeyNotTranslated:          {1, github + "cli/issues/4219"},
	CodeBroadcastKey:              {2, github + "cli/issues/4227"},
	sluice.CodeJwtSignatureError:  {3, github + "realtime/issues/415"},
	CodeTenantNotFound:            {4, github + "cli/issues/1662"},
	sluice.CodeNotAnAPIKey:        {6, github + "supabase/issues/32631"},
	CodeCookiesTooLarge:           {7, github + "realtime/issues/761"},
	sluice.CodeRouteNotFound:      {8, github + "cli/issues/3767"},
	CodeBadURL:                    {8, github + "cli/issues/3767"},
	sluice.CodeUnauthorized:       {9, github + "realtime/issues/1111"},
	CodeNoMessagePolicy:           {9, github + "realtime/issues/1111"},
	sluice.CodeJoinedWithoutToken: {10, github + "supabase-js/issues/1304"},
	sluice.CodeNoPolicyForRole:    {10, github + "supabase-js/issues/1304"},
	CodeBindings:                  {11, github + "supabase-js/issues/1917"},
	sluice.CodeTableNotPublished:  {12, github + "realtime/issues/205"},
	CodeNoPublication:             {12, github + "realtime/issues/205"},
	CodeCSP:                       {13, github + "supabase/issues/14816"},
	CodeNoWebSocket:               {14, github + "supabase-js/issues/1559"},
	sluice.CodeUpgradeRequired:    {16, github + "realtime/issues/472"},
	sluice.CodeInvalidJWTToken:    {17, github + "realtime-js/issues/274"},
	CodeRejoin:                    {18, github + "realtime-js/issues/169"},
	CodeUpstreamName:              {19, github + "cli/issues/1940"},
	CodeOneFamily:                 {19, github + "cli/issues/1198"},
	CodeSlot:                      {20, github + "cli/issues/2903"},
	CodeServiceDown:               {21, github + "cli/issues/4049"},
	CodeLoopbackHost:              {22, github + "supabase-js/issues/879"},
	sluice.CodeJwtSignerError:     {23, github + "cli/issues/4820"},
	CodeWrongPort:                 {24, github + "realtime/issues/372"},
	CodeUnreachable:               {24, github + "cli/issues/76"},
	CodeNoPartition:               {25, github + "realtime/issues/1484"},
	sluice.CodeMissingPartition:   {25, github + "realtime/issues/1484"},
	CodeBroadcastRefused:          {26, github + "realtime-js/issues/271"},
	sluice.CodeTooManyConns:       {27, github + "realtime/issues/1414"},
	sluice.CodeTooManyChannels:    {27, github + "realtime/issues/1414"},
	sluice.CodeUnsupportedVersion: {28, ""},
	CodeMixedContent:              {30, ""},
	CodeUpgradeInsecure:           {31, ""},
	CodeReplyMismatch:             {32, "https://github.com/supabase-community/supabase-py/issues/1297"},
}

// doubts are the codes whose findings are not certain, unless a check says so.
var doubts = map[sluice.Code]Confidence{
	CodeTimeout:                Likely,
	CodeServiceDown:            Likely,
	CodeUpstreamName:           Likely,
	sluice.CodeUpgradeRequired: Likely,
	CodeNoReply:                Likely,
	CodeChangeLost:             Likely,
	CodeBroadcastLost:          Likely,
	CodeOldClient:              Likely,
	CodeSocketRefused:          Possible,
	CodeOneFamily:              Possible,
	CodeLoopbackHost:           Likely,
	CodeNoWebSocket:            Possible,
}

func ok(format string, args ...any) Finding {
	return Finding{Status: OK, Text: fmt.Sprintf(format, args...)}
}

func skip(format string, args ...any) Finding {
	return Finding{Status: Skip, Text: fmt.Sprintf(format, args...)}
}

// fail returns a failing finding with the remedy of the table of refusals, if
// the code stands there.
func fail(code sluice.Code, format string, args ...any) Finding {
	f := Finding{Code: code, Status: Fail, Text: fmt.Sprintf(format, args...), Rule: causes[code].rule, Link: causes[code].link, Confidence: Certain}
	if c, has := doubts[code]; has {
		f.Confidence = c
	}
	if r := sluice.Refuse(code); r.Code == code {
		f.Remedy = r.Remedy
	}
	return f
}

// warn is fail for what hinders only sometimes.
func warn(code sluice.Code, format string, args ...any) Finding {
	f := fail(code, format, args...)
	f.Status = Warn
	return f
}

func (f Finding) evidence(format string, args ...any) Finding {
	f.Evidence = fmt.Sprintf(format, args...)
	return f
}

func (f Finding) remedy(format string, args ...any) Finding {
	f.Remedy = fmt.Sprintf(format, args...)
	return f
}

// sure sets a confidence that is not the code's usual one.
func (f Finding) sure(c Confidence) Finding {
	f.Confidence = c
	return f
}

// byRule sets a rule that is not the code's usual one.
func (f Finding) byRule(rule int, link string) Finding {
	f.Rule, f.Link = rule, link
	return f
}
