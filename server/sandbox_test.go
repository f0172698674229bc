package server

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/process"
)

// curious tries what a call asks for, and answers what came of it.
const curious = `
import lib, os, socket, urllib.request
def handle(r):
    what, _, arg = r.body.decode().partition(" ")
    try:
        if what == "read":
            text = open(arg).read()
        elif what == "list":
            text = str(os.listdir(arg))
        elif what == "get":
            text = urllib.request.urlopen(arg, timeout=5).read().decode()
        elif what == "hog":
            text = str(len(bytearray(int(arg) << 20)))
        r.answer(200, "allowed: " + text[:100])
    except Exception as e:
        r.answer(200, "refused: " + str(e))
lib.serve(handle)`

// confined deploys it with demands on its walls, and skips where they cannot be had.
func (n *node) confined(more ...string) {
	n.t.Helper()
	err := n.deployErr(append(more, "sandbox: {require: [namespaces, network, memory]}")...)
	if quipu.CodeOf(err) == quipu.CodeSandbox {
		n.t.Skip(err)
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) deployErr(more ...string) error {
	_, err := n.client.Deploy(n.t.Context(), "app", files{"quipu.yaml": function("f", "f.py", "python", more...), "f.py": curious}.pack(n.t))
	return err
}

// A function reaches its own door and the machine's other listeners, but neither the admin API, nor other doors, nor the data.
func TestAFunctionReachesItsOwnDoorAndNothingElseOfTheNode(t *testing.T) {
	n := start(t)
	n.confined()
	for _, attempt := range []string{
		"get http://" + n.info.HTTP + "/-/v1/functions", "get http://" + n.info.DaprHTTP + "/v1.0/metadata",
		"get http://localhost:" + port(n.info.HTTP) + "/%2d/v1/functions", "get http://" + n.info.HTTP + "/-", "get http://" + n.info.HTTP + "//-/v1/functions",
		"get http://" + n.info.HTTP + "/-/healthz", "get http://" + n.info.HTTP + "/-/metrics", "list " + n.data, "read " + n.data + "/node.json", "read /proc/1/environ",
	} {
		if a := n.post("/f/", attempt); !strings.HasPrefix(a.body, "refused: ") {
			t.Errorf("%s: %d %s", attempt, a.status, a.body)
		}
	}
	if a := n.post("/f/", "get http://127.0.0.1:3500/v1.0/healthz"); a.body != "allowed: " {
		t.Errorf("its own door: %d %s", a.status, a.body)
	}
	if a := n.post("/f/", "get http://"+n.info.HTTP+"/f/"); !strings.HasPrefix(a.body, "allowed: ") {
		t.Errorf("a route: %d %s", a.status, a.body)
	}
	eventually(t, "what was refused is told where its author looks", func() bool {
		for line, err := range n.client.Logs(t.Context(), "f", 100, false) {
			if err == nil && strings.Contains(line.Text, "was refused by the sandbox") {
				return true
			}
		}
		return false
	})
}

func TestAFunctionOutOfMemoryIsAnErrorAndTheNextCallIsServed(t *testing.T) {
	n := start(t)
	n.confined("memory: 128Mi")
	n.post("/f/", "hog 8").want(t, 200, "allowed: "+strconv.Itoa(8<<20))
	n.post("/f/", "hog 512").wantCode(t, quipu.CodeCrashed)
	n.post("/f/", "hog 8").want(t, 200, "allowed: "+strconv.Itoa(8<<20))
}

func TestAFunctionMayDemandLayers(t *testing.T) {
	n := start(t, unconfined)
	for _, c := range []struct {
		sandbox string
		code    quipu.Code
	}{
		{"{require: [namespaces]}", quipu.CodeSandbox},
		{"{require: [moat]}", quipu.CodeManifest},
		{"{network: everything}", quipu.CodeManifest},
		{"{allow: [here]}", quipu.CodeManifest},
	} {
		err := n.deployErr("sandbox: " + c.sandbox)
		if quipu.CodeOf(err) != c.code || !strings.Contains(err.Error(), "quipu.yaml:") {
			t.Errorf("%s: %v, want %s with its line", c.sandbox, err, c.code)
		}
	}
	if list, err := n.client.Functions(t.Context()); err != nil || len(list) > 0 {
		t.Errorf("what was refused is deployed: %v, %v", list, err)
	}
}

// The program of these tests lies in a folder that is its user's alone, as what go install makes for root. Walls stand all the same.
func TestWallsStandWhereverTheProgramLies(t *testing.T) {
	rt, err := process.New(process.Options{Dir: t.TempDir(), Sandbox: true})
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Close() //nolint:errcheck // nothing runs
	here := slices.ContainsFunc(rt.Layers(), func(l quipu.Layer) bool { return l.Name == quipu.LayerNamespaces && l.Active })
	k := spawn(t, t.TempDir(), "serve")
	found := k.on("doctor", "-o", "json")
	there := regexp.MustCompile(`(?s)"sandbox: namespaces".{0,40}"user, mount`).MatchString(found.out)
	if here != there {
		t.Errorf("there are namespaces: %v; for the program: %v\n%s", here, there, found.out)
	}
}
