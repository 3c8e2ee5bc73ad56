package main

import (
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/sluice-dev/sluice/console"
	"github.com/sluice-dev/sluice/examples/chat"
	"github.com/sluice-dev/sluice/inspect"
	"github.com/sluice-dev/sluice/mailbox"
	"github.com/sluice-dev/sluice/project"
)

// openConsole makes the console of section [studio]; l is nil when it is off. node is
// where the services put what looks into them.
func openConsole(f *folder, p *project.Project, named namedKeys, vars []envVar, services *serveConfig, box *mailbox.Box) (h http.Handler, l net.Listener, err error) {
	if !p.Config.Studio.Enabled {
		return nil, nil, nil
	}
	var node atomic.Pointer[inspect.Server]
	services.node = node.Store
	name := p.Config.ProjectID
	if name == "" {
		name = "local project"
	}
	cfg := console.Config{
		Project: name, APIURL: p.Config.API.ExternalURL, PublishableKey: named.publishable, Values: consoleValues(vars),
		Node: node.Load, Database: services.adminURL, Sign: services.keys.Sign,
		Log: func() ([]byte, error) { return endOf(f.logFile(), 64<<10) }, Client: chat.Client(), Logger: services.log,
	}
	if box != nil {
		cfg.MailURL = "http://" + net.JoinHostPort(p.Hostname, strconv.Itoa(p.Config.Inbucket.Port))
		cfg.Mails = func() []console.Mail {
			var out []console.Mail
			for _, m := range box.Latest(100) {
				out = append(out, console.Mail(m))
			}
			return out
		}
	}
	c, err := console.New(cfg)
	if err != nil {
		return nil, nil, err
	}
	held, err := listen(p.Config.Studio.Port, "port in [studio]")
	if err != nil {
		return nil, nil, err
	}
	return c, held.TCPListener, nil
}

// secretVars are the values of status that the console shows when asked.
var secretVars = []string{"auth.secret_key", "auth.jwt_secret", "auth.service_role_key"}

func consoleValues(vars []envVar) []console.Value {
	var out []console.Value
	for _, v := range vars {
		if v.ID != "mailpit.url" { // once
			out = append(out, console.Value{Name: v.Name, Label: v.Label, Value: v.Value, Secret: slices.Contains(secretVars, v.ID)})
		}
	}
	return out
}

// endOf reads the end of a file, from the beginning of a line.
func endOf(name string, most int64) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	end, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	text := make([]byte, min(end, most))
	n, err := file.ReadAt(text, end-int64(len(text)))
	if err != nil && err != io.EOF {
		return nil, err
	}
	text = text[:n]
	if int64(n) < end {
		if i := slices.Index(text, '\n'); i >= 0 {
			text = text[i+1:]
		}
	}
	return text, nil
}
