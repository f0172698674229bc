package server

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

func versioned(n int) string {
	return fmt.Sprintf("import lib\nlib.serve(lambda r: r.answer(200, %d))", n)
}

// Eight clients ask without a pause through five deploys. Each request is answered, and nobody who has seen a
// revision sees an older one again.
func TestDeploysDropNoRequest(t *testing.T) {
	n := start(t)
	n.python(versioned(0))
	n.get("/f/").want(t, 200, "0")
	var clients sync.WaitGroup
	var asked atomic.Int64
	over := make(chan struct{})
	for c := range 8 {
		clients.Go(func() {
			for seen := 0; ; asked.Add(1) {
				select {
				case <-over:
					return
				default:
				}
				a := n.get("/f/")
				version, err := strconv.Atoi(a.body)
				if a.status != 200 || err != nil || version < seen {
					t.Errorf("client %d, which has seen revision %d, got %d %q", c, seen, a.status, a.body)
					return
				}
				seen = version
			}
		})
	}
	for v := 1; v <= 5; v++ {
		n.python(versioned(v))
		eventually(t, "the new revision answers", func() bool { return n.get("/f/").body == strconv.Itoa(v) })
	}
	close(over)
	clients.Wait()
	t.Logf("%d requests", asked.Load())
}

// A route moves from one function to another and back, under eight clients: whoever waited for the one is
// answered by the other.
func TestARouteThatMovesBetweenFunctionsDropsNoRequest(t *testing.T) {
	n := start(t)
	deploy := func(name string) {
		manifest := strings.Replace(function(name, "f.py", "python"), "path: /"+name+"/", "path: /same/", 1)
		n.deploy(files{"quipu.yaml": manifest, "f.py": versioned(1)})
	}
	deploy("f")
	n.get("/same/").want(t, 200, "1")
	var clients sync.WaitGroup
	over := make(chan struct{})
	for range 8 {
		clients.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				if a := n.get("/same/"); a.status != 200 {
					t.Errorf("got %d %s", a.status, a.body)
					return
				}
			}
		})
	}
	for range 5 {
		deploy("g") // it is gone again before it has started, so that all who wait for it move twice
		deploy("f")
		n.get("/same/").want(t, 200, "1")
	}
	close(over)
	clients.Wait()
}

// A new function is added again and again, and asked for from the moment its route is there: it is never a route
// to nowhere.
func TestARouteLeadsToAFunctionFromItsFirstMoment(t *testing.T) {
	n := start(t)
	for round := range 10 {
		name := fmt.Sprintf("f%d", round)
		reply := make(chan answer, 1)
		go func() {
			for {
				if a := n.get("/" + name + "/"); a.code() != quipu.CodeNoRoute {
					reply <- a
					return
				}
			}
		}()
		n.deploy(files{"quipu.yaml": function(name, "f.py", "python"), "f.py": versioned(round)})
		(<-reply).want(t, 200, strconv.Itoa(round))
	}
}

const keeps = `
import lib
def handle(r):
    if r.command == "POST":
        r.answer(200, lib.state("POST", "shared/", b'[{"key":"k","value":%s}]' % r.body)[0])
    else:
        r.answer(200, lib.state("GET", "shared/k")[1])
lib.serve(handle)`

func TestNamespacesDoNotSeeEachOther(t *testing.T) {
	n := start(t)
	other := clientOf(t, n.info.HTTP, "", "other")
	if _, err := other.Deploy(t.Context(), "app", files{"quipu.yaml": function("f", "f.py", "python"), "f.py": keeps}.pack(t)); err != nil {
		t.Fatal(err)
	}
	n.get("/f/").wantCode(t, quipu.CodeNoRoute)
	if list, err := n.client.Functions(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("the default namespace has functions of another: %+v, %v", list, err)
	}
	n.python(keeps)
	n.post("/f/", "1").want(t, 200, "204")
	n.post("/f/", "2", sdk.HeaderNamespace, "other").want(t, 200, "204")
	n.get("/f/").want(t, 200, "1")
	n.get("/f/", sdk.HeaderNamespace, "other").want(t, 200, "2")
	for _, c := range []struct {
		client *sdk.Client
		own    string
		others string
	}{{n.client, "quipu/default", "quipu/other"}, {other, "quipu/other", "quipu/default"}} {
		if _, err := c.client.ReadBook(t.Context(), c.others, sdk.ReadRequest{}); quipu.CodeOf(err) != quipu.CodeNoBook {
			t.Errorf("book %s is read from outside: %v", c.others, err)
		}
		if err := c.client.VerifyBook(t.Context(), c.others, func(sdk.Progress) {}); quipu.CodeOf(err) != quipu.CodeNoBook {
			t.Errorf("book %s is verified from outside: %v", c.others, err)
		}
		if list, err := c.client.Books(t.Context()); err != nil || len(list) != 1 || list[0].Name != c.own {
			t.Errorf("listed %+v, %v; want %s alone", list, err, c.own)
		}
	}
	n.get("/f/", sdk.HeaderNamespace, "absent").wantCode(t, quipu.CodeNoRoute)
}
