package server

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"

	"github.com/quipu-run/quipu/sdk"
	steplib "github.com/quipu-run/quipu/sdk/step/lib"
)

const (
	metricsPage = "../docs/reference/metrics.md"
	dashboard   = "../docs/grafana/quipu.json"
)

// busy is a node that has something of everything to measure, with the metrics that it shows.
func busy(t *testing.T) []*dto.MetricFamily {
	t.Helper()
	n, err := open(t.Context(), Config{Data: t.TempDir(), Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.close(); err != nil {
			t.Error(err)
		}
	})
	user := &node{t: t, info: n.info, client: clientOf(t, n.info.HTTP, "", "")}
	user.deploy(tracedApp)
	if a := user.post("/f/", "{}"); a.status != 200 {
		t.Fatal(a.body)
	}
	jobs{user, "f"}.schedule("none", `{"dueTime":"0s"}`)
	eventually(t, "the job is gone", func() bool { return jobs{user, "f"}.gone("none") })
	if _, err := user.client.StartWorkflow(t.Context(), sdk.WorkflowStart{App: "shop", Name: "order"}); err != nil {
		t.Fatal(err)
	}
	durable := files{"quipu.yaml": function("d", "d.py", "python", "durable: true"), "step.py": string(steplib.Python),
		"d.py": "import step\nstep.serve(lambda call: call.step('one', lambda: 1))"}
	if _, err := user.client.Deploy(t.Context(), "durable", durable.pack(t)); err != nil {
		t.Fatal(err)
	}
	user.post("/d/", "{}").want(t, 200, "1")
	id := user.post("/f/", "{}", "Prefer", "respond-async").header.Get("Quipu-Call-Id")
	eventually(t, "the call that nobody waits for has ended, and the events are delivered", func() bool {
		i, err := user.client.Call(t.Context(), id)
		return err == nil && i.State == "succeeded" && strings.Contains(user.get("/-/metrics").body, `quipu_deliveries_total{namespace="default",outcome="done",subscription="g"} 3`) // of g: one of the job too
	})
	families, err := n.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// The page is made from what a node shows: QUIPU_UPDATE=1 go test ./server -run TestThePageOfMetrics writes it. The dashboard
// asks for nothing that no node has.
func TestThePageOfMetricsAndTheDashboardAreOfWhatANodeShows(t *testing.T) {
	families := busy(t)
	var b strings.Builder
	b.WriteString(metricsIntroduction)
	types := map[string]string{}
	for _, f := range families {
		types[f.GetName()] = strings.ToLower(f.GetType().String())
		if !strings.HasPrefix(f.GetName(), "quipu_") {
			continue // of Go and its process, as every program has them
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.GetName(), types[f.GetName()], labelsOf(f), f.GetHelp())
	}
	if os.Getenv("QUIPU_UPDATE") != "" {
		if err := os.WriteFile(metricsPage, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(metricsPage); err != nil || string(got) != b.String() {
		t.Errorf("%s is not what a node shows (%v): run QUIPU_UPDATE=1 go test ./server -run TestThePageOfMetrics", metricsPage, err)
	}
	checkNames(t, types)
	checkDashboard(t, types)
}

const metricsIntroduction = `# Metrics

What ` + "`GET /-/metrics`" + ` shows, in the format of Prometheus, or OpenMetrics if it is asked for: then the histograms of requests and
calls have exemplars, with the ids of traces. Besides these there are ` + "`go_*` and `process_*`" + `, as of every program in Go.
[grafana/quipu.json](../grafana/quipu.json) is a dashboard of them.

The number of series has a limit. ` + "`function` and `subscription`" + ` are names of functions that are deployed or attached, up to 1000 on
a node; ` + "`topic`" + ` is one that an application declares, a function subscribes to, or a function's dead letters are in, up to 1000. All
others share the value ` + "`other`" + `. A function that is removed takes its series with it. Nothing that a caller chooses is ever a label.

| metric | type | labels | what |
|---|---|---|---|
`

func labelsOf(f *dto.MetricFamily) string {
	names := map[string]bool{}
	for _, m := range f.Metric {
		for _, l := range m.Label {
			names["`"+l.GetName()+"`"] = true
		}
	}
	list := []string{}
	for name := range names {
		list = append(list, name)
	}
	slices.SortFunc(list, cmp.Compare)
	return strings.Join(list, ", ")
}

// checkNames holds names to the conventions of Prometheus.
func checkNames(t *testing.T, types map[string]string) {
	t.Helper()
	for name, kind := range types {
		if !strings.HasPrefix(name, "quipu_") {
			continue
		}
		if (kind == "counter") != strings.HasSuffix(name, "_total") {
			t.Errorf("%s is a %s: counters, and nothing else, end with _total", name, kind)
		}
		if regexp.MustCompile(`_(ms|millis|milliseconds|micros|microseconds|minutes|kb|mb|kilobytes|megabytes)(_|$)`).MatchString(name) {
			t.Errorf("%s has no base unit", name)
		}
	}
}

// checkDashboard looks at each expression of each panel.
func checkDashboard(t *testing.T, types map[string]string) {
	t.Helper()
	text, err := os.ReadFile(dashboard)
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Title         string
		SchemaVersion int
		Panels        []struct {
			ID      int
			Type    string
			Title   string
			GridPos struct{ H, W, X, Y int }
			Targets []struct{ Expr, RefID string }
		}
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	ids, used := map[int]bool{}, 0
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" || p.GridPos.X+p.GridPos.W > 24 || p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %d %q cannot be shown as it is", p.ID, p.Title)
		}
		ids[p.ID] = true
		for _, target := range p.Targets {
			if strings.Count(target.Expr, "(") != strings.Count(target.Expr, ")") || strings.Count(target.Expr, "{") != strings.Count(target.Expr, "}") {
				t.Errorf("%s: brackets of %s", p.Title, target.Expr)
			}
			for _, name := range regexp.MustCompile(`\b(quipu|go|process)_[a-z_]+`).FindAllString(target.Expr, -1) {
				used++
				base := name
				for _, suffix := range []string{"_bucket", "_sum", "_count"} {
					if cut, ok := strings.CutSuffix(name, suffix); ok && types[cut] == "histogram" {
						base = cut
					}
				}
				if types[base] == "" || types[base] == "histogram" && base == name {
					t.Errorf("%s: no node has %s", p.Title, name)
				}
			}
		}
	}
	if used < 20 || d.Title == "" || d.SchemaVersion == 0 {
		t.Errorf("the dashboard %q has %d metrics: it was not read", d.Title, used)
	}
}

// series lists those of quipu.
func (n *node) series() map[string]bool {
	all := map[string]bool{}
	for line := range strings.Lines(n.get("/-/metrics").body) {
		if name, _, ok := strings.Cut(line, " "); ok && strings.HasPrefix(line, "quipu_") {
			all[name] = true
		}
	}
	return all
}

// Whoever asks for what, no label is made of it: neither by requests from outside nor by those of a function.
func TestNobodyMakesTheMetricsGrow(t *testing.T) {
	n := start(t)
	n.python(`
import http.client, lib, os
def handle(r):
    door = http.client.HTTPConnection("127.0.0.1", int(os.environ["DAPR_HTTP_PORT"]))
    for method, path in (("POST", "/v1.0/invoke/%s/method/x"), ("POST", "/v1.0/publish/pubsub/%s"), ("GET", "/v1.0/state/%s/k"), ("BREW", "/v1.0/%s")):
        door.request(method, path % r.body.decode(), "{}", {"dapr-api-token": os.environ["DAPR_API_TOKEN"]})
        door.getresponse().read()
    r.answer(200, "ok")
lib.serve(handle)`)
	hostile := func(i int) {
		name := fmt.Sprintf("evil%d", i)
		if a := n.post("/f/"+name, name); a.status != 200 {
			t.Fatal(a.body)
		}
		ask(strings.ToUpper(name), "http://"+n.info.HTTP+"/"+name, name)
		n.post("/-/v1/functions/"+name+"/call/", "{}", "Prefer", "respond-async")
		n.post("/-/v1/functions/"+name+"/call/", "{}")
		n.get("/-/v1/" + name)
		n.get("/-/v1/calls/"+name, "Quipu-Namespace", name)
		if _, err := n.client.Publish(t.Context(), name, sdk.Publication{Data: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
		ask("POST", "http://"+n.info.DaprHTTP+"/v1.0/invoke/"+name+"/method/x", "{}", "dapr-caller-app-id", name)
		ask("POST", "http://"+n.info.DaprHTTP+"/v1.0/publish/pubsub/"+name+"-dead", "{}", "dapr-caller-app-id", name)
	}
	hostile(0)
	hostile(7)
	before := n.series()
	for i := range 40 {
		hostile(i + 8)
	}
	for name := range n.series() {
		if !before[name] && !strings.Contains(name, `function="f"`) { // which has more in a state, a phase or with a status that are from closed lists
			t.Errorf("a series more: %s", name)
		}
	}
	if found := linesWith(n.get("/-/metrics").body, "evil"); found != "" {
		t.Errorf("labels that callers chose:\n%s", found)
	}
}

// What is removed takes its figures along, so that deploying and removing does not make them grow either.
func TestARemovedFunctionTakesItsFiguresAlong(t *testing.T) {
	n := start(t)
	n.python(hello)
	n.get("/f/")
	if linesWith(n.get("/-/metrics").body, `quipu_call_seconds_count{function="f"`) == "" {
		t.Fatal("the function has no figures")
	}
	if err := n.client.Remove(t.Context(), "f"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its figures are gone", func() bool { return linesWith(n.get("/-/metrics").body, `function="f"`) == "" })
}

// The functions beyond the limit share one label.
func TestFunctionsBeyondTheLimitShareALabel(t *testing.T) {
	l := newLabels()
	names := map[string]bool{}
	for i := range functionsLabelled + 5 {
		names[fmt.Sprint("f", i)] = true
	}
	l.set("a", names)
	l.admit("b", "late")
	own := 0
	for name := range names {
		l.with("a", name, func(label string) {
			if label == name {
				own++
			} else if label != labelOther {
				t.Errorf("%s has the label %s", name, label)
			}
		})
	}
	if own != functionsLabelled || l.has("b", "late") {
		t.Errorf("%d have their own", own)
	}
	l.set("a", nil)
	if l.admit("b", "late"); !l.has("b", "late") || l.size != 1 {
		t.Error("labels that were given back are not used again")
	}
}

// Who asks for OpenMetrics gets the trace of a call that is in a bucket.
func TestHistogramsNameTraces(t *testing.T) {
	n := start(t)
	n.python(hello)
	n.post("/-/v1/functions/f/call/", "{}", "traceparent", remoteParent, "Quipu-Trace", "keep")
	text := n.get("/-/metrics", "Accept", "application/openmetrics-text; version=1.0.0").body
	if found := linesWith(text, `# {trace_id="`+remoteTrace+`"}`); !strings.Contains(found, "quipu_call_seconds_bucket") {
		t.Errorf("no exemplar in\n%s", linesWith(text, "quipu_call_seconds_bucket"))
	}
	if plain := n.get("/-/metrics").body; strings.Contains(plain, "trace_id") {
		t.Error("the old format has exemplars")
	}
}
