package crashtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/bundle"
)

// need skips a test of functions in languages that this machine has not; CI has them.
func need(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil && os.Getenv("CI") == "" {
			t.Skipf("%s is not on this machine", tool)
		}
	}
}

func tested(t *testing.T, dir string) Report {
	t.Helper()
	s, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Run(t.Context(), Options{Dir: dir, App: "app", Scenario: s, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d runs in %.1f s, %.1f runs/s", r.Runs, r.Seconds, float64(r.Runs)/r.Seconds)
	return r
}

func TestAnAtomicTransferIsCrashSafe(t *testing.T) {
	need(t, "python3", "node")
	r := tested(t, "testdata/transfer")
	for _, l := range r.Leaks {
		t.Errorf("%s: %+v %s", l.Point, l.Differences, l.Failed)
	}
	// The transfer has five operations, the mailer two for each of two letters, and each call has a reply.
	if r.Points != 12 || r.Tried != 12 || r.Unreached != 0 || len(r.Ignored) != 0 {
		t.Errorf("%+v", r)
	}
}

// The same functions, plain: what they did before they died is done twice. The report names each place, and no other.
func TestAPlainReadModifyWriteLeaksWhereItHasWritten(t *testing.T) {
	need(t, "python3", "node")
	r := tested(t, plain(t, "testdata/transfer"))
	var where []string
	for _, l := range r.Leaks {
		where = append(where, fmt.Sprintf("%d %s", l.Step, l.Point))
	}
	want := []string{"1 after PUT shared/ana by transfer", "1 after PUT shared/bob by transfer", "1 after PUBLISH paid by transfer", "1 before the reply of transfer",
		"1 after PUT shared/letters by mailer", "1 before the reply of mailer", "2 after PUT shared/letters by mailer", "2 before the reply of mailer"}
	if !slices.Equal(where, want) {
		t.Fatalf("it leaks\n%s\nbut should\n%s", strings.Join(where, "\n"), strings.Join(want, "\n"))
	}
	first := []Difference{{"key ana", "70", "40"}, {`event of paid {"amount":30,"left":40}`, "never", "once"}, {`event of paid {"amount":30,"left":70}`, "once", "never"}, {"answer to step 1", `200 "{\"ana\": 70, \"bob\": 30}"`, `200 "{\"ana\": 40, \"bob\": 30}"`}}
	if got := r.Leaks[0].Differences; !slices.Equal(got, first) {
		t.Errorf("after the first write: %+v", got)
	}
}

// plain is a copy of an application whose functions are not atomic.
func plain(t *testing.T, app string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(app)); err != nil {
		t.Fatal(err)
	}
	manifest := filepath.Join(dir, "quipu.yaml")
	text, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.ReplaceAll(string(text), "atomic: true", "atomic: false")
	if strings.Count(changed, "atomic: false") != 2 {
		t.Fatalf("it has not two atomic functions:\n%s", text)
	}
	if err := os.WriteFile(manifest, []byte(changed), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// folder is an application: names and texts of files by turns.
func folder(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	lib, err := os.ReadFile("testdata/lib.py")
	if err != nil {
		t.Fatal(err)
	}
	for i, all := 0, append(files, "lib.py", string(lib)); i < len(all); i += 2 {
		if err := os.WriteFile(filepath.Join(dir, all[i]), []byte(all[i+1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const hours = `apiVersion: quipu.dev/v1
kind: Function
metadata: {name: hourly}
spec:
  source: ./hourly.py
  runtime: python
  atomic: true
  triggers:
    - schedule: {cron: "0 * * * *"}
    - topic: {name: orders, retry: {max: 4, backoff: 20s}}
`

const hourly = `
from lib import dapr, serve

def handle(body):
    if body["type"] != "dev.quipu.tick":
        return 500, "I take no orders"
    ticks = (dapr("GET", "/state/shared/ticks") or 0) + 1
    dapr("POST", "/state/shared", [{"key": "ticks", "value": ticks}])
    return 200, "ok"

serve(handle)
`

// Two days of hours, and the minutes of retries that an event needs to be given up, take as long as the calls do.
func TestTimePassesWhenNothingElseHappens(t *testing.T) {
	need(t, "python3")
	s, err := Parse([]byte("steps:\n- publish: {topic: orders, data: 7}\n- advance: 48h\n"))
	if err != nil {
		t.Fatal(err)
	}
	o := &Options{Dir: folder(t, "quipu.yaml", hours, "hourly.py", hourly), App: "app", Scenario: s, start: time.Now().Truncate(time.Hour).Add(time.Hour + time.Second)}
	if o.bundle, err = bundle.Pack(t.Context(), o.Dir); err != nil {
		t.Fatal(err)
	}
	w := &worker{o: o, top: t.TempDir()}
	r, err := w.run(t.Context(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.state.Keys["ticks"]; got != "48" {
		t.Errorf("it ticked %s times in 48 hours", got)
	}
	if got := r.state.Events[Event{"hourly-dead", "7"}]; got != 1 {
		t.Errorf("the event was given up %d times: %v", got, r.state.Events)
	}
	if points, _ := r.rec.outcome(); len(points) != 5+48*3 {
		t.Errorf("%d operations, want 5 replies for the event, and 3 operations for each tick", len(points))
	}
}

const chancy = `
import random
from lib import dapr, serve

def handle(body):
    dapr("POST", "/state/shared", [{"key": "luck", "value": random.random()}, {"key": "k%s" % random.random(), "value": 1}, {"key": "sure", "value": 1}])
    dapr("POST", "/publish/pubsub/drawn", {"number": random.random()})
    return 200, "ok"

serve(handle)
`

// What depends on chance cannot be compared, but how much of it there is can be.
func TestWhatDependsOnChanceIsNamedAndNotComparedButCounted(t *testing.T) {
	need(t, "python3")
	manifest := "apiVersion: quipu.dev/v1\nkind: Function\nmetadata: {name: f}\nspec: {source: ./f.py, runtime: python, atomic: %v}\n"
	scenario := "steps: [{call: {function: f, data: {}}}]\n"
	r := tested(t, folder(t, "quipu.yaml", fmt.Sprintf(manifest, true), "f.py", chancy, File, scenario))
	if !r.Safe() || !slices.Contains(r.Ignored, "key luck") || slices.Contains(r.Ignored, "key sure") {
		t.Errorf("atomic: %+v", r)
	}
	r = tested(t, folder(t, "quipu.yaml", fmt.Sprintf(manifest, false), "f.py", chancy, File, scenario))
	if len(r.Leaks) != 3 || r.Leaks[0].Differences[0] != (Difference{"number of keys", "3", "4"}) ||
		!slices.Contains(r.Leaks[2].Differences, Difference{"number of events of drawn", "1", "2"}) {
		t.Errorf("plain: %+v", r.Leaks)
	}
}

func TestAnApplicationThatFailsByItselfIsNotTested(t *testing.T) {
	need(t, "python3")
	dir := folder(t, "quipu.yaml", "apiVersion: quipu.dev/v1\nkind: Function\nmetadata: {name: f}\nspec: {source: ./f.py, runtime: python}\n",
		"f.py", "from lib import serve\nserve(lambda body: (200, 'no'))\n")
	for text, want := range map[string]string{
		"steps: [{call: {function: f, data: {}}, expect: {body: 'yes'}}]": `step 1, POST f/, is answered with 200 "no"`,
		"steps: [{call: {function: g, data: {}}}]":                        "step 1, POST g/, is answered with Q0501",
	} {
		s, err := Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Run(t.Context(), Options{Dir: dir, App: "app", Scenario: s}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

func TestMistakesInAScenarioAreNamed(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "it has 0 steps",
		"steps: [{call: {function: f, x: 1}}]": "field x not found",
		"steps: [{call: {path: /}}]":           "needs a function",
		"steps: [{advance: 1h, publish: {topic: t}}]": "one of call, publish and advance",
		"steps: [{}]": "one of call, publish and advance",
		"steps: [{advance: 1h, expect: {status: 200}}]": "only a call",
		"steps: [{publish: {data: 1}}]":                 "needs a topic",
		"steps: [{advance: -1h}]":                       "is not a duration",
		"steps: [{call: {function: f, path: x}}]":       "starts with /",
	} {
		_, err := Parse([]byte(text))
		if quipu.CodeOf(err) != quipu.CodeUsage || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, err := Load(t.TempDir()); quipu.CodeOf(err) != quipu.CodeUsage || !strings.Contains(err.Error(), File) {
		t.Errorf("no file: %v", err)
	}
}

func TestASampleIsEven(t *testing.T) {
	points := make([]Point, 100)
	for i := range points {
		points[i].Operation = i
	}
	if got := len(sample(points, 100)); got != 100 {
		t.Errorf("all are %d", got)
	}
	var got []int
	for _, p := range sample(points, 4) {
		got = append(got, p.Operation)
	}
	if !slices.Equal(got, []int{0, 25, 50, 75}) {
		t.Errorf("four of a hundred: %v", got)
	}
}
