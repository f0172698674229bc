package server

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	steplib "github.com/quipu-run/quipu/sdk/step/lib"
)

var soakExecutions = flag.Int("soak-executions", 12, "how many executions of ten steps are made while node and function are killed, every 20 steps or so: go test ./server -run ExecutionsSoak -soak-executions 300 -timeout 0 -v")

const tenSteps = `
import os, urllib.request, step

def ask(what, key):
    request = urllib.request.Request(os.environ["SHOP_URL"] + "/" + what, b"", {"Idempotency-Key": key}, method="POST")
    with urllib.request.urlopen(request) as reply:
        return reply.read().decode()

def ten(call):
    done = []
    for n in range(10):
        key = call.key()
        done.append(call.step(f"step {n}", lambda: ask(f"{call.id}/{n}", key)))
        if n == 4:
            call.sleep(0.05)
    return done

step.serve(ten)
`

// outsideLedger is the world outside: it gives each key one number, and remembers who asked for what.
type outsideLedger struct {
	mu    sync.Mutex
	given map[string]string          // by what and key
	keys  map[string]map[string]bool // by what
	asked atomic.Int64
}

func newOutsideLedger() *outsideLedger {
	return &outsideLedger{given: map[string]string{}, keys: map[string]map[string]bool{}}
}

// keysOf are those that it was asked for something with.
func (l *outsideLedger) keysOf(what string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Keys(l.keys[what]))
}

func (l *outsideLedger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	what, key := r.URL.Path, r.Header.Get("Idempotency-Key")
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.keys[what] == nil {
		l.keys[what] = map[string]bool{}
	}
	l.keys[what][key] = true
	number := l.given[what+" "+key]
	if number == "" {
		number = fmt.Sprint(l.asked.Load())
		l.given[what+" "+key] = number
	}
	l.asked.Add(1)
	fmt.Fprint(w, number)
}

// Whatever is killed, each execution ends, each step has one key, and what it is answered with stays the same.
func TestExecutionsSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts the program some times")
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	l := newOutsideLedger()
	outside := httptest.NewServer(l)
	defer outside.Close()
	k := spawn(t, filepath.Join(t.TempDir(), "data"), "serve", "--sandbox=off")
	k.deploy(files{"quipu.yaml": function("ten", "ten.py", "python", "durable: true", "scale: {min: 1, max: 1}",
		fmt.Sprintf("env: {SHOP_URL: %q}", outside.URL), "async: {retry: {max: 100, backoff: 10ms}}"),
		"ten.py": tenSteps, "step.py": string(steplib.Python)})
	results := make([]string, *soakExecutions)
	url := "http://" + k.info.HTTP + "/ten/" // it stays, whatever is killed
	var next atomic.Int64
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(results)); i = next.Add(1) - 1 {
				results[i] = execution(url, fmt.Sprintf("x%d", i))
			}
		})
	}
	over := make(chan struct{})
	go func() {
		load.Wait()
		close(over)
	}()
	kills := k.killAll(rng, &l.asked, over)
	t.Logf("%d kills, %d requests outside for %d steps", kills, l.asked.Load(), 10**soakExecutions)
	if kills < 2 {
		t.Errorf("only %d kills: the test has not tested much", kills)
	}
	l.check(t, url, results)
}

// execution asks for one until it has a result.
func execution(url, id string) string {
	var got answer
	poll(func() bool {
		got = ask(http.MethodPost, url, "{}", "Idempotency-Key", id)
		return got.status == http.StatusOK
	})
	return got.body
}

// killAll kills the node or the function, now and then, as steps are made.
func (k *killable) killAll(rng *rand.Rand, asked *atomic.Int64, over chan struct{}) (kills int) {
	at := asked.Load() + 1 + rng.Int64N(15)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-over:
			return kills
		case <-tick.C:
		}
		if asked.Load() < at {
			continue
		}
		if rng.IntN(2) == 0 {
			k.kill()
			k.up()
		} else if list, err := k.client.Instances(k.t.Context()); err == nil && len(list) > 0 {
			_ = syscall.Kill(list[0].PID, syscall.SIGKILL) // it may have ended
		}
		kills++
		at = asked.Load() + 5 + rng.Int64N(30)
	}
}

func (l *outsideLedger) check(t *testing.T, url string, results []string) {
	t.Helper()
	for i, result := range results {
		id := fmt.Sprintf("x%d", i)
		var numbers []string
		if err := json.Unmarshal([]byte(result), &numbers); err != nil || len(numbers) != 10 {
			t.Errorf("%s: %.300q: %v", id, result, err)
			continue
		}
		for n, number := range numbers {
			what := fmt.Sprintf("/%s/%d", id, n)
			if keys := l.keys[what]; len(keys) != 1 {
				t.Errorf("%s was asked for with %d keys", what, len(keys))
			}
			for key := range l.keys[what] {
				if l.given[what+" "+key] != number {
					t.Errorf("%s was given %s, and recorded as %s", what, l.given[what+" "+key], number)
				}
			}
		}
		if again := execution(url, id); strings.TrimSpace(again) != strings.TrimSpace(result) {
			t.Errorf("%s: %q, then %q", id, result, again)
		}
	}
}
