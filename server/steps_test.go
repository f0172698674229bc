package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/quipu-run/quipu"
	steplib "github.com/quipu-run/quipu/sdk/step/lib"
)

// shop is what durable functions of the tests do things to: departments that count what they were asked for by its key.
type shop struct {
	*httptest.Server
	mu     sync.Mutex
	seen   map[string]int                   // "charge/7" -> times, whatever the key
	keys   map[string]map[string]bool       // and the keys that it came with
	before func(action string) (refuse int) // a status, 0 to go on
}

func newShop(t *testing.T) *shop {
	s := &shop{seen: map[string]int{}, keys: map[string]map[string]bool{}, before: func(string) int { return 0 }}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		what := strings.TrimPrefix(r.URL.Path, "/")
		s.mu.Lock()
		s.seen[what]++
		if s.keys[what] == nil {
			s.keys[what] = map[string]bool{}
		}
		s.keys[what][r.Header.Get("Idempotency-Key")] = true
		s.mu.Unlock()
		if status := s.before(what); status != 0 {
			http.Error(w, "no", status)
			return
		}
		fmt.Fprintf(w, "%s done", what)
	}))
	t.Cleanup(s.Close)
	return s
}

// once fails the test unless what was asked for is exactly that, each thing once.
func (s *shop) once(t *testing.T, want ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	got := slices.Sorted(maps.Keys(s.seen))
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the shop was asked for %v, want %v", got, want)
	}
	for what, n := range s.seen {
		if n != 1 || len(s.keys[what]) != 1 {
			t.Errorf("%s: asked for %d times, with %d keys", what, n, len(s.keys[what]))
		}
	}
}

// exampleOf packs an example with where the shop is; Go's is built first.
func exampleOf(t *testing.T, language string, s *shop) []byte {
	t.Helper()
	from, dir := filepath.Join("..", "examples", "steps", language), t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	if language == "go" {
		if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "order"), "github.com/quipu-run/quipu/examples/steps/go").CombinedOutput(); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
	}
	manifest := filepath.Join(dir, "quipu.yaml")
	text, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte("http://127.0.0.1:9000"), []byte(s.URL), 1)
	text = append(text, "  async: {retry: {max: 50, backoff: 10ms}}\n"...)
	if err := os.WriteFile(manifest, text, 0o644); err != nil {
		t.Fatal(err)
	}
	packed, err := packFolder(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	return packed
}

// stepNode is a node of which the test has the parts, too.
type stepNode struct {
	node
	parts *Node
}

func startSteps(t *testing.T) *stepNode {
	t.Helper()
	n := &stepNode{node: node{t: t, data: t.TempDir()}}
	n.open()
	t.Cleanup(func() {
		n.parts.end(t)
		n.noneLeft()
	})
	return n
}

func (n *stepNode) open() {
	n.t.Helper()
	parts, err := open(context.WithoutCancel(n.t.Context()), Config{Data: n.data, Version: "test", InstanceToken: true, Unconfined: true})
	if err != nil {
		n.t.Fatal(err)
	}
	n.parts, n.info = parts, parts.info
	n.client = clientOf(n.t, n.info.HTTP, "", "")
}

func (n *stepNode) restart() {
	n.t.Helper()
	n.parts.end(n.t)
	n.open()
}

var stepLanguages = []string{"python", "typescript", "go"}

// eachLanguage runs a story with the example in each language that the machine has.
func eachLanguage(t *testing.T, story func(t *testing.T, n *stepNode, s *shop)) {
	for _, language := range stepLanguages {
		t.Run(language, func(t *testing.T) {
			if _, err := exec.LookPath("node"); language == "typescript" && err != nil {
				t.Skip("node is not there")
			}
			s, n := newShop(t), startSteps(t)
			if _, err := n.client.Deploy(t.Context(), "app", exampleOf(t, language, s)); err != nil {
				t.Fatal(err)
			}
			story(t, n, s)
		})
	}
}

func TestTheLibrariesBesideTheExamplesAreTheLibraries(t *testing.T) {
	for name, want := range map[string][]byte{"python/step.py": steplib.Python, "typescript/step.ts": steplib.TypeScript} {
		got, err := os.ReadFile(filepath.Join("..", "examples", "steps", name))
		if err != nil || string(got) != string(want) {
			t.Errorf("examples/steps/%s is not that of sdk/step/lib: %v", name, err)
		}
	}
}

// A small order needs no approval: each step is done once, and the same key gets the same answer without anything being done again.
func TestAnOrderInSteps(t *testing.T) {
	eachLanguage(t, func(t *testing.T, n *stepNode, s *shop) {
		first := n.post("/orders", `{"id":"7","cents":100}`, "Idempotency-Key", "order-7")
		if first.status != 200 || !strings.Contains(first.body, `shipped`) || first.header.Get("Quipu-Execution") != "order-7" {
			t.Fatalf("%d %s %v", first.status, first.body, first.header)
		}
		n.post("/orders", `{"id":"7","cents":100}`, "Idempotency-Key", "order-7").want(t, 200, first.body)
		n.post("/orders", `{"id":"8","cents":100}`, "Idempotency-Key", "order-7").wantCode(t, quipu.CodeIdempotency)
		s.once(t, "reserve/7", "charge/7", "ship/7")
	})
}

// What one department refuses, the others take back, the last first.
func TestAnOrderThatIsRefused(t *testing.T) {
	eachLanguage(t, func(t *testing.T, n *stepNode, s *shop) {
		s.before = func(action string) int {
			if action == "ship/7" {
				return http.StatusConflict
			}
			return 0
		}
		if a := n.post("/orders", `{"id":"7","cents":100}`); a.status != 200 || !strings.Contains(a.body, "cancelled") {
			t.Fatalf("%d %s", a.status, a.body)
		}
		s.once(t, "reserve/7", "charge/7", "ship/7", "refund/7", "release/7")
	})
}

// An order that waits for an approval holds nothing: its caller has the id, the node may stop, and the event wakes it.
func TestAnOrderThatWaits(t *testing.T) {
	eachLanguage(t, func(t *testing.T, n *stepNode, s *shop) {
		a := n.post("/orders", `{"id":"7","cents":20000}`, "Idempotency-Key", "order-7", "Prefer", "respond-async")
		if a.status != http.StatusAccepted {
			t.Fatalf("%d %s", a.status, a.body)
		}
		waits := func() bool {
			i, err := n.parts.main(t).flows.store.Workflow(t.Context(), quipu.WorkflowKey{App: "order", ID: "order-7"})
			return err == nil && len(i.Waits) == 1 && i.Waits[0].What == "event" && i.Waits[0].Name == "approval"
		}
		eventually(t, "the order waits for its approval", waits)
		n.restart()
		if !waits() {
			t.Error("after a restart the order does not wait any more")
		}
		if err := n.parts.main(t).flows.store.RaiseWorkflow(t.Context(), quipu.WorkflowKey{App: "order", ID: "order-7"}, "approval", []byte(`"yes"`)); err != nil {
			t.Fatal(err)
		}
		a = n.post("/orders", `{"id":"7","cents":20000}`, "Idempotency-Key", "order-7")
		var got struct{ State, Parcel string }
		if err := json.Unmarshal([]byte(a.body), &got); err != nil || got.State != "shipped" || got.Parcel != "ship/7 done" {
			t.Fatalf("%d %s: %v", a.status, a.body, err)
		}
		s.once(t, "reserve/7", "charge/7", "ship/7")
	})
}
