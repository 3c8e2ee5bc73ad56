// Package loopback guards what listens to this machine alone.
package loopback

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// Guard refuses requests whose Host is not a name of this machine or an address: a
// page elsewhere, whose name was made to point here, could read answers otherwise.
// what is named in the refusal.
func Guard(what string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !Local(r.Host) {
			http.Error(w, what+" is opened as localhost or by an IP address", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// Local reports whether host, with or without a port, is localhost or an address.
func Local(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	_, err := netip.ParseAddr(host)
	return err == nil
}
