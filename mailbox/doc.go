// Package mailbox is the mail catcher of a development stack: what Auth mails is
// kept in memory, shown on a page, and offered as JSON on the paths of Mailpit that
// tests of Supabase projects read. Nothing leaves the machine.
//
// It is given messages in process (Box.Send); there is no SMTP. cmd/sluice serves
// it on the port of section [inbucket], on the loopback address.
package mailbox
