package server

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"testing"
	"time"
)

var soakJobs = flag.Int("soak-jobs", 50, "how many jobs: go test ./server -run JobsSoak -soak-jobs 1000 -soak-kills 12 -v")

const soakJob = `
import json, lib

def handle(r):
    name = r.path.rsplit("/", 1)[-1]
    status, old = lib.state("GET", "shared/" + name)
    lib.state("POST", "shared", json.dumps([{"key": name, "value": int(old or 0) + 1}]))
    r.answer(200, "ok")
lib.serve(handle)`

// The node is killed while jobs are set and come, and each takes effect once.
func TestJobsSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts the program some times")
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	k := spawn(t, filepath.Join(t.TempDir(), "data"), "serve")
	n := &k.node
	n.python(soakJob, "atomic: true")
	kills := map[int]bool{}
	for i := range *soakKills { // spread over the first half of the jobs; the rest is set afterwards, so some come later
		kills[(i+1)**soakJobs/(*soakKills+1)] = true
	}
	for i := range *soakJobs {
		if kills[i] {
			<-time.After(time.Duration(rng.IntN(50)) * time.Millisecond) // of what goes on
			k.kill()
			k.up()
		}
		k.acknowledged(i, rng)
	}
	for i := range *soakJobs {
		eventually(t, fmt.Sprintf("job %d has come", i), func() bool { return n.state(fmt.Sprint("job", i)) != "" })
	}
	jobs, _, err := k.client.Jobs(t.Context(), "f", "", "")
	if err != nil || len(jobs) > 0 {
		t.Errorf("%d jobs are left, %v", len(jobs), err)
	}
	for i := range *soakJobs {
		if s := n.state(fmt.Sprint("job", i)); s != "1" {
			t.Errorf("job %d took effect %s times", i, s)
		}
	}
}

// acknowledged sets a job until the node has said that it is durable. It may be set already.
func (k *killable) acknowledged(i int, rng *rand.Rand) {
	k.t.Helper()
	j := jobs{&k.node, "f"}
	a := j.ask("POST", fmt.Sprint("job", i), fmt.Sprintf(`{"dueTime":"%dms"}`, rng.IntN(400)))
	if a.status != http.StatusNoContent {
		k.t.Fatalf("job %d: %d %s", i, a.status, a.body)
	}
}
