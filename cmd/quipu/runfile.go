package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/quipu-run/quipu/internal/resource"
	"github.com/quipu-run/quipu/sdk"
)

// appsOf are the applications of a dapr.yaml, with the files and the console that their output goes to.
func (c *cli) appsOf(file string) (apps []*appRun, err error) {
	home, err := os.UserHomeDir()
	if err != nil {
		home = "" // then there is nothing in it
	}
	run, err := resource.ReadRun(file, home)
	if err != nil {
		return nil, err
	}
	for _, warning := range run.Warnings {
		c.note("warning: %s", warning)
	}
	defer func() {
		for _, a := range apps {
			if err != nil {
				err = errors.Join(err, a.close())
			}
		}
	}()
	console, began := &console{out: c.out, err: c.err}, time.Now()
	for _, one := range run.Apps {
		if slices.ContainsFunc(apps, func(a *appRun) bool { return a.appID == one.ID }) {
			return apps, usage("%s:%d: there are two apps %q: give one another appID", run.File, one.Line, one.ID)
		}
		a, err := newAppRun(one, console, began)
		if err != nil {
			return apps, err
		}
		apps = append(apps, a)
		if err := a.prepare(); err != nil {
			return apps, err
		}
	}
	return apps, nil
}

// newAppRun makes one application, and opens its files.
func newAppRun(one resource.RunApp, console *console, began time.Time) (*appRun, error) {
	a := &appRun{command: one.Command, sidecar: sidecar{appID: one.ID, resources: one.Resources, listen: one.ListenAddresses, bodyMax: one.BodyBytesMax,
		health:  one.HealthCheck,
		healthy: sdk.AttachedHealth{Path: one.HealthPath, IntervalMillis: 1000 * max(0, one.HealthInterval), TimeoutMillis: max(0, one.HealthTimeout), Threshold: max(0, one.HealthThreshold)},
		Attachment: sdk.Attachment{Port: one.Port, Protocol: protocolOf(one.Protocol, one.TLS), Address: one.ChannelAddress, Concurrency: one.ConcurrencyMax,
			DaprHTTPPort: one.DaprHTTPPort, DaprGRPCPort: one.DaprGRPCPort, Socket: one.Socket, Dir: one.Dir, AppToken: os.Getenv("APP_API_TOKEN")}}}
	if one.ConfigFile != "" {
		a.configs = []string{one.ConfigFile}
	}
	for name, value := range one.Env {
		a.env = append(a.env, name+"="+value)
	}
	slices.Sort(a.env)
	logs := logFiles{dir: filepath.Join(one.Dir, ".dapr", "logs"), app: one.ID, began: began}
	a.close = logs.close
	app, err := logs.open("app", one.AppLogDestination)
	if err != nil {
		return nil, errors.Join(err, logs.close())
	}
	own, err := logs.open("daprd", one.DaprLogDestination)
	if err != nil {
		return nil, errors.Join(err, logs.close())
	}
	a.out = logs.lines(app, one.AppLogDestination, console, console.out, "== APP - "+one.ID+" == ")
	a.err = logs.lines(app, one.AppLogDestination, console, console.err, "== APP - "+one.ID+" == ")
	note := logs.lines(own, one.DaprLogDestination, console, console.err, "== DAPRD - "+one.ID+" == ")
	a.note = func(format string, args ...any) { fmt.Fprintf(note, format+"\n", args...) }
	return a, nil
}

// logFiles are the files that one application's output goes to.
type logFiles struct {
	dir, app string
	began    time.Time
	files    []*os.File
	writers  []*lineWriter
}

// open makes a file, if the destination has one.
func (l *logFiles) open(what, destination string) (io.Writer, error) {
	if destination == resource.LogConsole {
		return io.Discard, nil
	}
	if err := os.MkdirAll(l.dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(l.dir, fmt.Sprintf("%s_%s_%s.log", l.app, what, l.began.Format("20060102150405"))), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	l.files = append(l.files, f)
	return f, nil
}

// lines writes to a file, to the console, or to both.
func (l *logFiles) lines(file io.Writer, destination string, c *console, to io.Writer, prefix string) io.Writer {
	if destination == resource.LogFile {
		return file
	}
	w := &lineWriter{console: c, to: to, prefix: prefix}
	l.writers = append(l.writers, w)
	return io.MultiWriter(file, w)
}

func (l *logFiles) close() (err error) {
	for _, w := range l.writers {
		err = errors.Join(err, w.flush())
	}
	for _, f := range l.files {
		err = errors.Join(err, f.Close())
	}
	l.writers, l.files = nil, nil
	return err
}

// console is shared by all applications, a line at a time.
type console struct {
	mu       sync.Mutex
	out, err io.Writer
}

// lineMax is how long a line may be before it is broken.
const lineMax = 64 << 10

// lineWriter puts a prefix before each line.
type lineWriter struct {
	console *console
	to      io.Writer
	prefix  string

	mu   sync.Mutex
	left []byte // guarded by mu: of a line that has not ended
}

// Write passes on the lines that end in p.
func (w *lineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left = append(w.left, p...)
	for {
		end := bytes.IndexByte(w.left, '\n')
		if end < 0 && len(w.left) < lineMax {
			return len(p), nil
		}
		if end < 0 {
			end = len(w.left) - 1
		}
		if err := w.line(w.left[:end+1]); err != nil {
			return 0, err
		}
		w.left = append(w.left[:0], w.left[end+1:]...)
	}
}

func (w *lineWriter) line(text []byte) error {
	w.console.mu.Lock()
	defer w.console.mu.Unlock()
	_, err := fmt.Fprintf(w.to, "%s%s\n", w.prefix, bytes.TrimSuffix(text, []byte("\n")))
	return err
}

// flush writes what has not ended with a line.
func (w *lineWriter) flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.left) == 0 {
		return nil
	}
	defer func() { w.left = nil }()
	return w.line(w.left)
}
