package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/trace"
)

// observeFlags are what a node says of itself, and to whom.
type observeFlags struct {
	LogFormat  string  // text, which "" means, or json
	LogLevel   string  // debug, info, which "" means, warn or error
	TraceRatio float64 // of the requests without a traceparent that are recorded; below 0: as the environment says
}

func (o *observeFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.LogFormat, "log-format", "text", "form of the node's own log: text or json")
	f.StringVar(&o.LogLevel, "log-level", "info", "least level of the node's own log: debug, info, warn or error")
	f.Float64Var(&o.TraceRatio, "trace-ratio", -1, "part of the requests without a traceparent that is traced, from 0 to 1; below 0: what OTEL_TRACES_SAMPLER says, which is all if an OTLP endpoint is set")
}

// logger writes lines with the trace that they are about, if it is known.
func (o observeFlags) logger(to io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if o.LogLevel != "" {
		if err := level.UnmarshalText([]byte(o.LogLevel)); err != nil || strings.ContainsAny(o.LogLevel, "+-") {
			return nil, usage("--log-level is %q, but must be debug, info, warn or error", o.LogLevel)
		}
	}
	options := &slog.HandlerOptions{Level: level}
	switch o.LogFormat {
	case "", "text":
		return slog.New(trace.LogHandler(slog.NewTextHandler(to, options))), nil
	case "json":
		return slog.New(trace.LogHandler(slog.NewJSONHandler(to, options))), nil
	}
	return nil, usage("--log-format is %q, but must be text or json", o.LogFormat)
}

// traces is how a node traces: as OpenTelemetry's environment says, and the flag where it was given.
func (o observeFlags) traces() (trace.Config, error) {
	c, err := trace.FromEnvironment(os.Getenv)
	switch {
	case err != nil:
		return c, err
	case o.TraceRatio > 1 || o.TraceRatio != o.TraceRatio:
		return c, &quipu.Error{Code: quipu.CodeUsage, Text: fmt.Sprintf("--trace-ratio is %v, but must be from 0 to 1", o.TraceRatio)}
	case o.TraceRatio >= 0:
		c.Ratio = o.TraceRatio
	}
	return c, nil
}
