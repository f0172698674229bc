package main

import (
	"cmp"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/quipu-run/quipu/internal/resource"
	"github.com/quipu-run/quipu/internal/trace"
)

// configured is what the Configuration of the application says of a node that is its own: where traces go, in place of what the
// environment says, and whether metrics are served.
func (d *daprd) configured(traces trace.Config) (trace.Config, error) {
	read, err := d.f.read(os.LookupEnv, os.Environ)
	if err != nil {
		return traces, err
	}
	set, err := resource.ReadFiles(read.Resources)
	if err != nil {
		return traces, err
	}
	for _, c := range set.Configurations {
		if !c.For(d.f.appID) {
			continue
		}
		if enabled := cmp.Or(c.Spec.Metrics.Enabled, c.Spec.Metric.Enabled); enabled != nil && !*enabled {
			d.f.metrics = false
		}
		traces = d.traced(traces, c.Spec.Tracing)
	}
	return traces, nil
}

// traced is Dapr's way to say it. A rate of 0 is what it means there: nothing is recorded that nobody asked for.
func (d *daprd) traced(traces trace.Config, t resource.Tracing) trace.Config {
	if t.Zipkin.Endpoint != "" || t.Stdout {
		d.log.Warn("traces go to an OTLP endpoint only: spec.tracing.otel of the Configuration; zipkin and stdout make no difference")
	}
	if rate, err := strconv.ParseFloat(t.SamplingRate, 64); err == nil { // a bad one is refused with the other resources
		traces.Ratio = rate
	}
	if t.Otel.Endpoint == "" {
		return traces
	}
	if len(t.Otel.Headers) > 0 {
		d.log.Warn("spec.tracing.otel.headers of the Configuration make no difference: set OTEL_EXPORTER_OTLP_HEADERS")
	}
	scheme := "https://"
	if t.Otel.Secure != nil && !*t.Otel.Secure {
		scheme = "http://"
	}
	traces.Export, traces.Endpoint, traces.Protocol = true, t.Otel.Endpoint, trace.ProtocolHTTP
	if !strings.Contains(t.Otel.Endpoint, "://") {
		traces.Endpoint = scheme + t.Otel.Endpoint
	}
	if t.Otel.Protocol != "http" {
		traces.Protocol = trace.ProtocolGRPC
	} else if u, err := url.Parse(traces.Endpoint); err == nil && u.Path == "" {
		traces.Endpoint += "/v1/traces"
	}
	return traces
}
