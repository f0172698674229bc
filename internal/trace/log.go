package trace

import (
	"context"
	"errors"
	"log/slog"
)

// LogHandler adds to a line the trace of its context, and about which call it is if its error knows that.
func LogHandler(h slog.Handler) slog.Handler { return logHandler{h} }

type logHandler struct{ slog.Handler }

func (h logHandler) Handle(ctx context.Context, r slog.Record) error {
	if s := Of(ctx); s != nil {
		r = r.Clone()
		r.AddAttrs(slog.String("trace", s.TraceID()))
	}
	var about CallError
	r.Attrs(func(a slog.Attr) bool {
		err, ok := a.Value.Any().(error)
		return !(ok && errors.As(err, &about))
	})
	if about.Call != "" {
		r = r.Clone()
		r.AddAttrs(slog.String("call", about.Call), slog.String("fn", about.Function))
	}
	return h.Handler.Handle(ctx, r)
}

func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return logHandler{h.Handler.WithAttrs(attrs)}
}

func (h logHandler) WithGroup(name string) slog.Handler { return logHandler{h.Handler.WithGroup(name)} }

// CallError is an error of which nobody but the log is told, with the call that it is about.
type CallError struct {
	Call, Function string
	Err            error
}

func (e CallError) Error() string { return e.Err.Error() }

// Unwrap is the error.
func (e CallError) Unwrap() error { return e.Err }
