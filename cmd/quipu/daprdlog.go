package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/quipu-run/quipu/gateway/dapr"
)

// levelFatal is what daprd says last.
const levelFatal = slog.LevelError + 4

// daprdLog writes lines as daprd does, for the tools that read them.
type daprdLog struct {
	least slog.Level
	json  bool
	group string
	attrs []slog.Attr // with the names of their groups

	mu *sync.Mutex // guards to
	to io.Writer
}

// newDaprdLog wants one of daprd's levels.
func newDaprdLog(to io.Writer, level string, asJSON bool, appID string) (*slog.Logger, error) {
	least, ok := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "warning": slog.LevelWarn,
		"error": slog.LevelError, "fatal": levelFatal}[strings.ToLower(level)]
	if !ok {
		return nil, usage("invalid value for --log-level: %s", level)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return slog.New(&daprdLog{least: least, json: asJSON, mu: &sync.Mutex{}, to: to, attrs: []slog.Attr{slog.String("app_id", appID), slog.String("instance", host),
		slog.String("scope", "dapr.runtime"), slog.String("type", "log"), slog.String("ver", dapr.RuntimeVersion)}}), nil
}

// Enabled goes by the level.
func (l *daprdLog) Enabled(_ context.Context, level slog.Level) bool { return level >= l.least }

// WithAttrs adds fields. Of two of one name the later counts.
func (l *daprdLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *l
	next.attrs = slices.Clone(l.attrs)
	for _, a := range attrs {
		next.attrs = appendAttr(next.attrs, l.group, a)
	}
	return &next
}

// WithGroup puts a name before those of fields.
func (l *daprdLog) WithGroup(name string) slog.Handler {
	next := *l
	next.group = l.group + name + "."
	return &next
}

func appendAttr(to []slog.Attr, group string, a slog.Attr) []slog.Attr {
	a.Value = a.Value.Resolve()
	if a.Value.Kind() == slog.KindGroup {
		for _, one := range a.Value.Group() {
			to = appendAttr(to, group+a.Key+".", one)
		}
		return to
	}
	a.Key = group + a.Key
	for i := range to {
		if to[i].Key == a.Key {
			to[i] = a
			return to
		}
	}
	return append(to, a)
}

// Handle writes one line.
func (l *daprdLog) Handle(_ context.Context, r slog.Record) error {
	attrs := slices.Clone(l.attrs)
	r.Attrs(func(a slog.Attr) bool {
		attrs = appendAttr(attrs, l.group, a)
		return true
	})
	slices.SortFunc(attrs, func(a, b slog.Attr) int { return strings.Compare(a.Key, b.Key) })
	attrs = append([]slog.Attr{slog.String("time", r.Time.Format(time.RFC3339Nano)), slog.String("level", levelOf(r.Level)), slog.String("msg", r.Message)}, attrs...)
	line := textLine
	if l.json {
		line = jsonLine
	}
	text := line(attrs)
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.to.Write(text)
	return err
}

func levelOf(l slog.Level) string {
	switch {
	case l >= levelFatal:
		return "fatal"
	case l >= slog.LevelError:
		return "error"
	case l >= slog.LevelWarn:
		return "warning"
	case l >= slog.LevelInfo:
		return "info"
	}
	return "debug"
}

func textLine(attrs []slog.Attr) []byte {
	var b bytes.Buffer
	for i, a := range attrs {
		if i > 0 {
			b.WriteByte(' ')
		}
		value := a.Value.String()
		if strings.ContainsFunc(value, func(r rune) bool { return !isBare(r) }) {
			value = strconv.Quote(value)
		}
		fmt.Fprintf(&b, "%s=%s", a.Key, value)
	}
	b.WriteByte('\n')
	return b.Bytes()
}

// isBare tells what need not be quoted.
func isBare(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._/@^+", r)
}

func jsonLine(attrs []slog.Attr) []byte {
	line := make(map[string]any, len(attrs))
	for _, a := range attrs {
		line[a.Key] = a.Value.String()
	}
	text, err := json.Marshal(line)
	if err != nil {
		panic("daprd log: a map of strings: " + err.Error())
	}
	return append(text, '\n')
}
