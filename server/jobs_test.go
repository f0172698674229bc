package server

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// jobs speaks Dapr's jobs API from outside, as an application.
type jobs struct {
	n   *node
	app string
}

func (j jobs) ask(method, name, body string) answer {
	return ask(method, "http://"+j.n.info.DaprHTTP+"/v1.0/jobs/"+name, body, "dapr-caller-app-id", j.app, "Content-Type", "application/json")
}

func (j jobs) schedule(name, body string) {
	j.n.t.Helper()
	j.ask("POST", name, body).want(j.n.t, http.StatusNoContent, "")
}

// gone tells whether there is no job of the name any more.
func (j jobs) gone(name string) bool {
	a := j.ask("GET", name, "")
	if a.status != http.StatusOK && !strings.Contains(a.body, string(quipu.CodeNoAlarm)) {
		j.n.t.Fatalf("job %s: %d %s", name, a.status, a.body)
	}
	return a.status != http.StatusOK
}

// took notes the jobs that an application in this process gets, and answers as it is told.
type took struct {
	mu     sync.Mutex
	list   []string
	status int
}

func (k *took) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // it is the test's
	k.mu.Lock()
	defer k.mu.Unlock()
	k.list = append(k.list, r.PathValue("name")+" "+r.Header.Get("Content-Type")+" "+string(body))
	w.WriteHeader(k.status)
}

func (k *took) all() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return strings.Join(k.list, "\n")
}

func (k *took) answer(status int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.status = status
}

// A job waits until its application is there, comes as Dapr brings it, is tried again, and goes when it was delivered.
func TestAJobReachesAnAttachedApplication(t *testing.T) {
	n := start(t)
	j := jobs{n, "shop"}
	j.schedule("buy milk", `{"dueTime":"0s","data":{"n":1}}`)
	got := &took{status: http.StatusInternalServerError}
	app := newOutsideApp(t, "orders")
	app.mux.HandleFunc("POST /job/{name}", got.serve)
	n.attach("shop", sdk.Attachment{Port: app.port, Protocol: "http"})
	eventually(t, "an attempt", func() bool { return got.all() == `buy milk application/json {"n":1}` })
	got.answer(http.StatusOK)
	eventually(t, "it is done", func() bool { return j.gone("buy milk") })
	if got.all() != strings.Repeat("buy milk application/json {\"n\":1}\n", 1)+`buy milk application/json {"n":1}` {
		t.Errorf("it got\n%s", got.all())
	}

	got.answer(http.StatusNotFound) // which Dapr does not try again
	j.schedule("unknown", `{"dueTime":"0s","data":"x"}`)
	eventually(t, "it is not asked again", func() bool { return j.gone("unknown") })
	if a := (jobs{n, "other"}).ask("GET", "unknown", ""); a.status != http.StatusInternalServerError {
		t.Errorf("another application sees it: %d %s", a.status, a.body)
	}
}

const counts = `
import http.client, json, lib, os, urllib.parse

def handle(r):
    name = r.path.rsplit("/", 1)[-1]
    status, old = lib.state("GET", "shared/" + name)
    n = int(old or 0) + 1
    lib.state("POST", "shared", json.dumps([{"key": name, "value": n}]))
    if name == "flaky" and n < 3 and int(r.headers["Quipu-Attempt"]) < 2:
        r.answer(500, "not now")
    else:
        r.answer(200, "ok")
lib.serve(handle)`

// For an atomic function a job and what it does are one: attempts that fail leave nothing, and each time counts once.
func TestAJobOfAnAtomicFunctionTakesEffectOnce(t *testing.T) {
	n := start(t)
	n.python(counts, "atomic: true")
	j := jobs{n, "f"}
	j.schedule("flaky", `{"schedule":"@every 100ms","repeats":3,"failurePolicy":{"constant":{"interval":"0.05s","maxRetries":5}}}`)
	for i := range 20 {
		j.schedule(fmt.Sprint("once", i), `{"dueTime":"1ms","data":{}}`)
	}
	eventually(t, "all are done", func() bool {
		for i := range 20 {
			if !j.gone(fmt.Sprint("once", i)) {
				return false
			}
		}
		return j.gone("flaky")
	})
	if s := n.state("flaky"); s != "3" {
		t.Errorf("three times of a job took effect %s times", s)
	}
	for i := range 20 {
		if s := n.state(fmt.Sprint("once", i)); s != "1" {
			t.Errorf("job %d took effect %q times", i, s)
		}
	}
}

const chains = `
import http.client, json, lib, os

def job(name, body):
    door = http.client.HTTPConnection("127.0.0.1", int(os.environ["DAPR_HTTP_PORT"]))
    door.request("POST", "/v1.0/jobs/" + name, json.dumps(body), {"dapr-api-token": os.environ["DAPR_API_TOKEN"], "Content-Type": "application/json"})
    reply = door.getresponse()
    reply.read()
    assert reply.status == 204, reply.status

def handle(r):
    if r.path == "/f/fail":
        job("lost", {"dueTime": "0s"})
        return r.answer(500, "no")
    if r.path == "/f/begin":
        job("chain", {"dueTime": "0s", "data": 1})
        return r.answer(200, "begun")
    n = json.loads(r.body)
    lib.state("POST", "shared", json.dumps([{"key": "at" + str(n), "value": r.path}]))
    if n < 5:
        job("chain", {"dueTime": "1ms", "data": n + 1, "overwrite": True})
    r.answer(200, "ok")
lib.serve(handle)`

// A call that sets a job is all or nothing with it; a job may set itself anew.
func TestAnAtomicFunctionSetsJobs(t *testing.T) {
	n := start(t)
	n.python(chains, "atomic: true")
	if a := n.post("/f/fail", ""); a.status != 500 {
		t.Fatal(a)
	}
	if j := (jobs{n, "f"}); !j.gone("lost") {
		t.Error("a call that failed has set a job")
	}
	n.post("/f/begin", "").want(t, 200, "begun")
	eventually(t, "the chain has come to its end", func() bool { return n.state("at5") != "" })
	for i := range 5 {
		if s := n.state(fmt.Sprint("at", i+1)); s != `"/job/chain"` {
			t.Errorf("link %d: %s", i+1, s)
		}
	}
	eventually(t, "the last is gone", func() bool { return jobs{n, "f"}.gone("chain") })
}

func TestJobsAreAskedForAsInDapr(t *testing.T) {
	n := start(t)
	j := jobs{n, "shop"}
	j.schedule("report", `{"schedule":"0 30 3 * * *","repeats":5,"ttl":"8760h","data":{"kind":"daily"}}`)
	a := j.ask("GET", "report", "")
	for _, part := range []string{`"name":"report"`, `"schedule":"0 30 3 * * *"`, `"repeats":5`, `"ttl":"8760h"`, `"@type":"type.googleapis.com/google.protobuf.Value"`, `"kind":"daily"`, `"maxRetries":3`} {
		if !strings.Contains(strings.ReplaceAll(a.body, `": `, `":`), part) {
			t.Errorf("%s is not in %s", part, a.body)
		}
	}
	for body, want := range map[string]string{
		`{"schedule":"@daily"}`:              `409 DAPR_SCHEDULER_SCHEDULE_JOB`,
		`{}`:                                 `400 DAPR_SCHEDULER_SCHEDULE_EMPTY`,
		`{"name":"x","dueTime":"1s"}`:        `400 DAPR_SCHEDULER_JOB_NAME`,
		`{"dueTime":"1s","repeats":0}`:       `400 DAPR_SCHEDULER_SCHEDULE_JOB`,
		`{"schedule":"now and then"}`:        `400 DAPR_SCHEDULER_SCHEDULE_JOB`,
		`{"dueTime":1}`:                      `400 ERR_MALFORMED_REQUEST`,
		`[]`:                                 `400 ERR_MALFORMED_REQUEST`,
		`{"dueTime":"1h","overwrite":"yes"}`: `400 ERR_MALFORMED_REQUEST`,
	} {
		a := j.ask("POST", "report", body)
		if got := fmt.Sprint(a.status, " ", a.body); !strings.HasPrefix(got, want[:3]) || !strings.Contains(got, want[4:]) {
			t.Errorf("%s: %s", body, got)
		}
	}
	j.schedule("report", `{"schedule":"@daily","overwrite":true}`)
	j.ask("DELETE", "report", "").want(t, 204, "")
	j.ask("DELETE", "report", "").want(t, 204, "")
	if a := j.ask("GET", "report", ""); a.status != 500 || !strings.Contains(a.body, "DAPR_SCHEDULER_GET_JOB") {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := j.ask("PUT", "report", "{}"); a.status != http.StatusMethodNotAllowed {
		t.Errorf("PUT: %d", a.status)
	}
	if a := ask("DELETE", "http://"+n.info.DaprHTTP+"/v1.0-alpha1/jobs/x", "", "dapr-caller-app-id", "shop"); a.status != 204 {
		t.Errorf("the name of before: %d %s", a.status, a.body)
	}
}

// Jobs that are under way when the node is stopped come after it starts again.
func TestJobsOutliveTheNode(t *testing.T) {
	n := start(t)
	j := jobs{n, "f"}
	for i := range 10 {
		j.schedule(fmt.Sprint("j", i), `{"dueTime":"1ms"}`)
	}
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	n.run()
	n.python(counts, "atomic: true")
	eventually(t, "all are done", func() bool {
		for i := range 10 {
			if n.state(fmt.Sprint("j", i)) != "1" {
				return false
			}
		}
		return true
	})
	figures := ask("GET", "http://"+n.info.HTTP+"/-/metrics", "").body
	for _, line := range []string{`quipu_timers_pending{kind="job",namespace="default"} 0`, `quipu_timers_late_seconds_count{kind="job",namespace="default"} 10`,
		`quipu_jobs_total{function="f",namespace="default",outcome="settled"} 10`} {
		eventually(t, line, func() bool {
			figures = ask("GET", "http://"+n.info.HTTP+"/-/metrics", "").body
			return strings.Contains(figures, line)
		})
	}
}
