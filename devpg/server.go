package devpg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Config describes one cluster.
type Config struct {
	// DataDir is where the cluster lives. Required. When this process is root
	// and the unprivileged user that the server runs as cannot enter the
	// folder, the cluster lives below /var/lib/sluice and a file in DataDir
	// says where.
	DataDir string
	// LogFile receives the server's log. Default: postgres.log beside DataDir.
	LogFile string
	// Port on 127.0.0.1. Required.
	Port int
	// Superuser that initdb makes. Default supabase_admin.
	Superuser string
	// Password of the superuser at the first start. Default postgres.
	Password string
	// Settings are PostgreSQL settings on top of the defaults. The port is not
	// among them.
	Settings map[string]string
	// InitArgs are further arguments for initdb.
	InitArgs []string
	// Binaries to run. Default: Find, at the first Start.
	Binaries Binaries
	// FetchDir is where binaries are unpacked when none are installed. Default:
	// a folder in the user's cache, as root one below /var/lib/sluice.
	FetchDir string
	// Repository replaces the address that binaries are fetched from.
	Repository string
	// Progress is told about long steps. Default: nobody.
	Progress func(line string)
	// Logger is required.
	Logger *slog.Logger
	// StartTimeout bounds a start, crash recovery included. Default 2 minutes.
	StartTimeout time.Duration
}

// defaultSettings make a cluster that Sluice can stream from and that listens
// to this machine alone.
var defaultSettings = map[string]string{
	"listen_addresses":           "127.0.0.1",
	"unix_socket_directories":    "",
	"wal_level":                  "logical",
	"max_wal_senders":            "10",
	"max_replication_slots":      "10",
	"max_slot_wal_keep_size":     "4096MB",
	"max_connections":            "100",
	"password_encryption":        "scram-sha-256",
	"timezone":                   "UTC",
	"log_timezone":               "UTC",
	"datestyle":                  "iso, mdy",
	"lc_messages":                "C",
	"log_line_prefix":            "%m [%p] %q%u@%d ",
	"dynamic_shared_memory_type": "posix",
	"shared_buffers":             "64MB",
	"max_wal_size":               "1GB",
	"jit":                        "off",
}

// Server is one private cluster.
type Server struct {
	// fixed after New
	cfg Config

	// set by Start
	dir  string // where the cluster is
	proc *process
}

// New checks cfg. It starts nothing.
func New(cfg Config) (*Server, error) {
	if cfg.DataDir == "" || cfg.Port < 1 || cfg.Port > 65535 || cfg.Logger == nil {
		return nil, fmt.Errorf("devpg needs DataDir, Port and Logger (port %d)", cfg.Port)
	}
	dir, err := filepath.Abs(cfg.DataDir)
	if err != nil {
		return nil, fmt.Errorf("resolve data folder: %w", err)
	}
	cfg.DataDir = dir
	if cfg.LogFile == "" {
		cfg.LogFile = filepath.Join(filepath.Dir(dir), "postgres.log")
	}
	if cfg.Superuser == "" {
		cfg.Superuser = "supabase_admin"
	}
	if cfg.Password == "" {
		cfg.Password = "postgres"
	}
	if cfg.Progress == nil {
		cfg.Progress = func(string) {}
	}
	if cfg.StartTimeout == 0 {
		cfg.StartTimeout = 2 * time.Minute
	}
	if cfg.FetchDir == "" {
		cfg.FetchDir = filepath.Join(fetchRoot(), "postgresql-"+string(fetchVersion))
	}
	for k, v := range cfg.Settings {
		if !settingName(k) || strings.ContainsAny(v, "\n\r\x00") {
			return nil, fmt.Errorf("PostgreSQL setting %q is not valid", k)
		}
	}
	return &Server{cfg: cfg}, nil
}

func settingName(s string) bool {
	for i, c := range []byte(s) {
		if !(c == '_' || c >= 'a' && c <= 'z' || i > 0 && (c == '.' || c >= '0' && c <= '9')) {
			return false
		}
	}
	return s != ""
}

// URL returns a connection URL for a role and database of this cluster. All
// roles have the cluster's password.
func (s *Server) URL(user, database string) string {
	u := url.URL{
		Scheme: "postgresql", User: url.UserPassword(user, s.cfg.Password),
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(s.cfg.Port)), Path: "/" + database, RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Binaries returns the binaries in use, after Start.
func (s *Server) Binaries() Binaries { return s.cfg.Binaries }

// Done is closed when the server that Start started has ended, whoever ended it.
// Before the first Start it is nil, and so never ready. Not to be called while
// Start runs.
func (s *Server) Done() <-chan struct{} {
	if s.proc == nil {
		return nil
	}
	return s.proc.done
}

// Start brings the cluster up and returns when it accepts connections. It makes
// the cluster if there is none, ends a server that a killed predecessor left on
// the same folder, and waits for crash recovery. fresh reports whether the
// cluster was made by this call.
func (s *Server) Start(ctx context.Context) (fresh bool, err error) {
	if s.proc != nil && !s.proc.ended() {
		return false, errors.New("the server is running already")
	}
	account, err := serverAccount()
	if err != nil {
		return false, err
	}
	if s.dir, err = place(s.cfg.DataDir, account); err != nil {
		if foreign := checkOwner(s.cfg.DataDir, account); errors.Is(err, fs.ErrPermission) && foreign != nil {
			return false, foreign
		}
		return false, err
	}
	if err := checkOwner(s.dir, account); err != nil {
		return false, err
	}
	if err := s.binaries(ctx, account); err != nil {
		return false, err
	}
	if err := s.endPredecessor(ctx); err != nil {
		return false, err
	}
	if err := portFree(s.cfg.Port); err != nil {
		return false, err
	}
	switch v, err := s.clusterVersion(); {
	case err != nil:
		return false, err
	case v == 0:
		if err := s.initdb(ctx, account); err != nil {
			return false, err
		}
		fresh = true
	case v != s.cfg.Binaries.Version:
		return false, s.versionError(v)
	}
	if err := s.writeSettings(account); err != nil {
		return fresh, err
	}
	return fresh, s.launch(ctx, account)
}

// binaries settles which server is run: that of the cluster's version, when
// there are several.
func (s *Server) binaries(ctx context.Context, account *account) error {
	b := s.cfg.Binaries
	if b.Dir == "" {
		want, err := s.clusterVersion()
		if err != nil {
			return err
		}
		b, err = find(ctx, want, filepath.Join(s.cfg.FetchDir, "bin"))
		if errors.Is(err, ErrNoBinaries) {
			s.cfg.Progress(err.Error())
			b, err = Fetch(ctx, s.cfg.FetchDir, s.cfg.Repository, s.cfg.Progress)
		}
		if err != nil {
			return err
		}
	}
	if account != nil && !account.canEnter(b.Dir) {
		return fmt.Errorf("user %s, that PostgreSQL runs as, cannot enter the folder of its binaries, %s", account.name, b.Dir)
	}
	s.cfg.Binaries = b
	return nil
}

// clusterVersion returns the major version that made the cluster, 0 when there
// is none yet.
func (s *Server) clusterVersion() (int, error) {
	text, err := os.ReadFile(filepath.Join(s.dir, "PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read version of the cluster: %w", err)
	}
	v, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || v <= 0 {
		return 0, fmt.Errorf("%s says %q, which is no version; the cluster is damaged, delete it with `sluice stop --no-backup`", filepath.Join(s.dir, "PG_VERSION"), text)
	}
	return v, nil
}

// versionError says what to do about a cluster of another version than the
// binaries have.
func (s *Server) versionError(v int) error {
	remedy := "name the folder of the right ones in SLUICE_PG_BIN"
	if v > MaxVersion {
		remedy = fmt.Sprintf("this Sluice works with versions %d to %d, use a newer one", MinVersion, MaxVersion)
	}
	return fmt.Errorf("the cluster in %s was made by PostgreSQL %d, the binaries in %s are version %s; %s, or delete the cluster with `sluice stop --no-backup`",
		s.dir, v, s.cfg.Binaries.Dir, s.cfg.Binaries.Full, remedy)
}

func (s *Server) program(name string) string { return s.cfg.Binaries.Program(name) }

// scratchInfix is in the name of folders beside a cluster's in which it is made.
const scratchInfix = ".new-"

// scratches lists such folders of the cluster in dir.
func scratches(dir string) (out []string) {
	beside, _ := os.ReadDir(filepath.Dir(dir)) // none when there is none
	for _, e := range beside {
		if strings.HasPrefix(e.Name(), filepath.Base(dir)+scratchInfix) {
			out = append(out, filepath.Join(filepath.Dir(dir), e.Name()))
		}
	}
	return out
}

// initdb makes the cluster beside its place and moves it there, so that a
// folder with PG_VERSION is always whole.
func (s *Server) initdb(ctx context.Context, account *account) error {
	if err := os.Remove(s.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("data folder %s is not empty and holds no cluster; move what is in it away: %w", s.dir, err)
	}
	s.cfg.Progress(fmt.Sprintf("Creating a PostgreSQL %s cluster...", s.cfg.Binaries.Full))
	// A name of its own: an initdb that was cut off may still be deleting what
	// it made under its.
	for _, old := range scratches(s.dir) {
		_ = os.RemoveAll(old) // the worst is that it stays for the next time
	}
	scratch, err := os.MkdirTemp(filepath.Dir(s.dir), filepath.Base(s.dir)+scratchInfix) // mode 0700
	if err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	defer os.RemoveAll(scratch)
	if err := give(scratch, account); err != nil {
		return err
	}
	data := filepath.Join(scratch, "data")
	password := filepath.Join(scratch, ".password")
	if err := s.writePassword(password, account); err != nil {
		return err
	}
	locale := "C.UTF-8"
	if runtime.GOOS != "linux" {
		locale = "C"
	}
	args := append([]string{
		"-D", data, "-U", s.cfg.Superuser, "--pwfile", password, "-E", "UTF8", "--locale=" + locale,
		"--auth=scram-sha-256", "--no-sync", "--no-instructions",
	}, s.cfg.InitArgs...)
	cmd := exec.CommandContext(ctx, s.program("initdb"), args...)
	cmd.Dir = scratch
	cmd.Env = serverEnvironment()
	account.apply(cmd)
	out, err := tiedOutput(cmd)
	if ctx.Err() != nil {
		return fmt.Errorf("initdb: %w", context.Cause(ctx))
	}
	if err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, strings.TrimSpace(string(out)))
	}
	if err := os.Rename(data, s.dir); err != nil {
		return fmt.Errorf("move the new cluster: %w", err)
	}
	return nil
}

// writePassword writes the file that initdb reads the password from. The folder
// is the server's user's, who must not lead this process, possibly root, to
// another file: O_EXCL follows no link.
func (s *Server) writePassword(file string, account *account) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write password file: %w", err)
	}
	_, err = f.WriteString(s.cfg.Password + "\n")
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("write password file: %w", err)
	}
	return give(file, account)
}

// quoteSetting escapes a value for postgresql.conf.
var quoteSetting = strings.NewReplacer("'", "''", `\`, `\\`)

// writeSettings replaces postgresql.conf; ALTER SYSTEM writes to another file
// and wins.
func (s *Server) writeSettings(account *account) error {
	all := maps.Clone(defaultSettings)
	maps.Copy(all, s.cfg.Settings)
	all["port"] = strconv.Itoa(s.cfg.Port)
	if runtime.GOOS == "windows" {
		delete(all, "dynamic_shared_memory_type")
		delete(all, "unix_socket_directories")
	}
	var b strings.Builder
	b.WriteString("# Written by Sluice at every start. Use [db.settings] in supabase/config.toml.\n")
	for _, k := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&b, "%s = '%s'\n", k, quoteSetting.Replace(all[k]))
	}
	// By way of a new file: what stands under the name now was possibly put
	// there by the server's user, and this process may be root.
	tmp, err := os.CreateTemp(s.dir, "postgresql.conf.") // mode 0600
	if err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	defer os.Remove(tmp.Name()) // it is gone when all went well
	_, err = tmp.WriteString(b.String())
	if err == nil && account != nil {
		err = tmp.Chown(account.uid, account.gid)
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), filepath.Join(s.dir, "postgresql.conf"))
	}
	if err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	return nil
}

// serverEnvironment leaves PG* variables of the user's shell out.
func serverEnvironment() []string {
	return append(slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, "PG") || strings.HasPrefix(kv, "LC_") || strings.HasPrefix(kv, "LANG")
	}), "LC_ALL=C")
}

// launch starts the postmaster and waits until it says that it is ready.
func (s *Server) launch(ctx context.Context, account *account) error {
	logFile, err := os.OpenFile(s.cfg.LogFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the server's log: %w", err)
	}
	defer logFile.Close()
	from, _ := logFile.Seek(0, io.SeekEnd) // 0 on failure: the error shows more
	cmd := exec.Command(s.program("postgres"), "-D", s.dir)
	cmd.Dir = s.dir
	cmd.Env = serverEnvironment()
	cmd.Stdout, cmd.Stderr = logFile, logFile
	account.apply(cmd)
	proc, err := startProcess(cmd)
	if err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	s.proc = proc
	if err := s.waitReady(ctx, from); err != nil {
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = s.Stop(stopCtx)
		return err
	}
	s.cfg.Logger.Info("PostgreSQL runs", "version", s.cfg.Binaries.Full, "port", s.cfg.Port, "pid", cmd.Process.Pid)
	return nil
}

// pollEvery is how often the status line of postmaster.pid is read. The server
// tells nobody when it is ready.
const pollEvery = 2 * time.Millisecond

func (s *Server) waitReady(ctx context.Context, logFrom int64) error {
	start := time.Now()
	deadline := time.NewTimer(s.cfg.StartTimeout)
	defer deadline.Stop()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	said := false
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.proc.done:
			return fmt.Errorf("PostgreSQL ended while it started:\n%s", lastLines(s.cfg.LogFile, logFrom))
		case <-deadline.C:
			return fmt.Errorf("PostgreSQL is not ready after %s:\n%s", s.cfg.StartTimeout, lastLines(s.cfg.LogFile, logFrom))
		case <-tick.C:
		}
		if p, err := readPidFile(s.dir); err == nil && p.pid == s.proc.pid && p.status == "ready" {
			return nil
		}
		if !said && time.Since(start) > 2*time.Second {
			said = true
			s.cfg.Progress("PostgreSQL is recovering after an unclean end...")
		}
	}
}

// lastLines returns the end of what the server logged since an offset.
func lastLines(file string, from int64) string {
	const limit = 4096
	f, err := os.Open(file)
	if err != nil {
		return "(no log: " + err.Error() + ")"
	}
	defer f.Close()
	if fi, err := f.Stat(); err == nil && fi.Size()-from > limit {
		from = fi.Size() - limit
	}
	text, _ := io.ReadAll(io.NewSectionReader(f, from, limit)) // what could be read
	return strings.TrimSpace(string(text)) + "\n(log: " + file + ")"
}

// Stop ends the server: a fast shutdown with a checkpoint, an immediate one when
// ctx ends first. It returns after the process has ended. Stopping what does
// not run is no error.
func (s *Server) Stop(ctx context.Context) error {
	if s.proc == nil || s.proc.ended() {
		return nil
	}
	return s.proc.stop(ctx)
}

// Remove deletes a cluster that does not run, wherever it lives.
func Remove(dataDir string) error {
	dir, err := filepath.Abs(dataDir)
	if err != nil {
		return fmt.Errorf("resolve data folder: %w", err)
	}
	all := append(scratches(dir), dir)
	if elsewhere, err := ownPlace(dir); err == nil && elsewhere != "" {
		all = append(append(all, scratches(elsewhere)...), elsewhere, elsewhere+ownerSuffix)
	}
	for _, dir := range all {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("delete cluster: %w", err)
		}
	}
	return nil
}
