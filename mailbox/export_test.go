package mailbox

import "github.com/sluice-dev/sluice"

// PlainText is the text of a message.
var PlainText = plainText

// Matches runs a search on one message.
func Matches(query, to, subject string) bool {
	return parseQuery(query, "sender")(&message{Mail: sluice.Mail{To: to, Subject: subject}})
}
