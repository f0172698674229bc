package trace

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// Protocols of OTLP.
const (
	ProtocolHTTP = "http/protobuf"
	ProtocolGRPC = "grpc"
)

// Config of a Tracer. What it does not say the exporter takes from the variables OTEL_EXPORTER_OTLP_ itself: headers,
// certificates, compression.
type Config struct {
	Export   bool
	Endpoint string // a URL; "" means that of OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or OTEL_EXPORTER_OTLP_ENDPOINT
	Protocol string // "" means ProtocolHTTP
	// Ratio of the requests without a traceparent that are recorded, from 0 to 1.
	Ratio float64

	limits queueLimits // zero fields get OpenTelemetry's defaults
}

// FromEnvironment reads what OpenTelemetry says how to configure an SDK, by the variables that get has. Nothing is exported
// unless an endpoint is named. CodeUsage.
func FromEnvironment(get func(string) string) (c Config, err error) {
	own := func(name string) string {
		return cmp.Or(get("OTEL_EXPORTER_OTLP_TRACES_"+name), get("OTEL_EXPORTER_OTLP_"+name))
	}
	if own("ENDPOINT") == "" || get("OTEL_TRACES_EXPORTER") == "none" || strings.EqualFold(get("OTEL_SDK_DISABLED"), "true") {
		return c, nil
	}
	c.Export, c.Protocol = true, cmp.Or(own("PROTOCOL"), ProtocolHTTP)
	if c.Protocol != ProtocolHTTP && c.Protocol != ProtocolGRPC {
		return c, usage("OTEL_EXPORTER_OTLP_PROTOCOL is %q, but must be %s or %s", c.Protocol, ProtocolHTTP, ProtocolGRPC)
	}
	if c.Ratio, err = sampler(get("OTEL_TRACES_SAMPLER"), get("OTEL_TRACES_SAMPLER_ARG")); err != nil {
		return c, err
	}
	return c, c.limits.read(get)
}

// sampler is the ratio that a name of a sampler stands for. Callers are followed with all of them.
func sampler(name, arg string) (float64, error) {
	switch strings.TrimPrefix(name, "parentbased_") {
	case "", "always_on":
		return 1, nil
	case "always_off":
		return 0, nil
	case "traceidratio":
		ratio, err := strconv.ParseFloat(cmp.Or(arg, "1"), 64)
		if err != nil || !(ratio >= 0 && ratio <= 1) {
			return 0, usage("OTEL_TRACES_SAMPLER_ARG is %q, but must be a number from 0 to 1", arg)
		}
		return ratio, nil
	}
	return 0, usage("OTEL_TRACES_SAMPLER is %q, which is not known: it may be always_on, always_off or traceidratio, each also with parentbased_ before it", name)
}

func (l *queueLimits) read(get func(string) string) error {
	for _, v := range []struct {
		name string
		set  func(int)
	}{
		{"OTEL_BSP_MAX_QUEUE_SIZE", func(n int) { l.Queue = n }},
		{"OTEL_BSP_MAX_EXPORT_BATCH_SIZE", func(n int) { l.Batch = n }},
		{"OTEL_BSP_SCHEDULE_DELAY", func(n int) { l.Delay = time.Duration(n) * time.Millisecond }},
		{"OTEL_BSP_EXPORT_TIMEOUT", func(n int) { l.Timeout = time.Duration(n) * time.Millisecond }},
	} {
		text := get(v.name)
		if text == "" {
			continue
		}
		const most = 1 << 20
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > most {
			return usage("%s is %q, but must be a number from 1 to %d", v.name, text, most)
		}
		v.set(n)
	}
	return nil
}

func (l queueLimits) withDefaults() queueLimits {
	l.Queue = cmp.Or(l.Queue, 2048)
	l.Batch = min(cmp.Or(l.Batch, 512), l.Queue)
	l.Delay = cmp.Or(l.Delay, 5*time.Second)
	l.Timeout = cmp.Or(l.Timeout, 30*time.Second)
	return l
}

func usage(format string, args ...any) error {
	return &quipu.Error{Code: quipu.CodeUsage, Op: "trace.config", Text: fmt.Sprintf(format, args...)}
}

// New makes a Tracer, which is to be closed. version is the node's. Nothing is sent yet: a collector may come later.
func New(ctx context.Context, c Config, version string, logger *slog.Logger) (*Tracer, error) {
	t := &Tracer{kept: newMemory(), ratio: c.Ratio}
	about, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", "quipu"), attribute.String("service.version", version)),
		resource.WithTelemetrySDK(), resource.WithFromEnv()) // the last of two wins
	if err != nil {
		return nil, usage("OTEL_RESOURCE_ATTRIBUTES cannot be used: %v", err)
	}
	limits := sdktrace.NewSpanLimits()
	limits.AttributeCountLimit, limits.AttributeValueLengthLimit = attributesMax, attributeBytesMax
	options := []sdktrace.TracerProviderOption{sdktrace.WithResource(about), sdktrace.WithRawSpanLimits(limits),
		sdktrace.WithSampler(sdktrace.AlwaysSample()), sdktrace.WithSpanProcessor(t.kept)} // incoming has decided
	if c.Export {
		e, err := c.exporter(ctx)
		if err != nil {
			return nil, usage("traces cannot be exported: %v", err)
		}
		otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { // of the process: exporters have no other way to tell
			logger.Warn("traces were not exported as they should be", "err", err)
		}))
		t.exports = newQueue(e, c.limits.withDefaults(), logger)
		options = append(options, sdktrace.WithSpanProcessor(t.exports))
	}
	t.provider = sdktrace.NewTracerProvider(options...)
	t.otel = t.provider.Tracer("github.com/quipu-run/quipu")
	return t, nil
}

func (c Config) exporter(ctx context.Context) (sdktrace.SpanExporter, error) {
	if c.Protocol == ProtocolGRPC {
		var o []otlptracegrpc.Option
		if c.Endpoint != "" {
			o = append(o, otlptracegrpc.WithEndpointURL(c.Endpoint))
		}
		return otlptracegrpc.New(ctx, o...)
	}
	var o []otlptracehttp.Option
	if c.Endpoint != "" {
		o = append(o, otlptracehttp.WithEndpointURL(c.Endpoint))
	}
	return otlptracehttp.New(ctx, o...)
}

// Figures count spans that were meant for an exporter, by what became of them.
type Figures struct{ Exported, Dropped, Failed uint64 }

// Figures are since the start.
func (t *Tracer) Figures() (f Figures) {
	if t != nil && t.exports != nil {
		f = Figures{Exported: t.exports.exported.Load(), Dropped: t.exports.dropped.Load(), Failed: t.exports.failed.Load()}
	}
	return f
}

// Close sends what waits, until ctx ends. Spans that end later are lost.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// Every is the configuration with a delay after which spans are sent, whatever the environment says.
func (c Config) Every(delay time.Duration) Config {
	c.limits.Delay = delay
	return c
}

// Queued is the configuration with a limit of spans that wait.
func (c Config) Queued(spans int) Config {
	c.limits.Queue = spans
	return c
}
