package sluice

// Mail is a message that Auth has written, to one recipient. Who delivers it
// knows the sender. Address and subject are one line each.
type Mail struct {
	To      string
	Subject string
	HTML    string
}
