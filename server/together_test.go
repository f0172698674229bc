package server

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	steplib "github.com/quipu-run/quipu/sdk/step/lib"
)

const togetherPython = `
import step

def together(call):
    def slow(c):
        c.sleep(0.7)
        return c.step("a", lambda: "A")

    def broken():
        raise ValueError("broken")

    a, b = call.parallel(slow, lambda c: c.step("b", lambda: "B"))
    child, once = call.invoke("child", {"n": 1}), call.invoke("counter")
    try:
        call.step("bad", broken)
    except step.StepError as problem:
        bad = str(problem)
    try:
        call.wait_event("never", timeout=0.02)
    except TimeoutError:
        return [a, b, child, once, bad, True]

step.serve(together)
`

const togetherScript = `
import { StepError, Timeout, serve } from "./step.ts";

serve(async (call) => {
  const [a, b] = await call.all<string>([
    async (c) => {
      await c.sleep(700);
      return c.step("a", () => "A");
    },
    (c) => c.step("b", () => "B"),
  ]);
  const child = await call.invoke("child", { n: 1 });
  const once = await call.invoke("counter");
  const bad = await call.step("bad", () => { throw new Error("broken"); }).catch((problem: StepError) => problem.message);
  const late = await call.waitEvent("never", 20).catch((problem) => problem instanceof Timeout);
  return [a, b, child, once, bad, late];
});
`

// Branches, children, atomic functions, failures and timeouts: each library does the same with them, over several runs.
func TestWhatTheLibrariesOffer(t *testing.T) {
	if testing.Short() {
		t.Skip("it is about programs that are built without the race detector")
	}
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("node is not there")
	}
	app := files{"step.py": string(steplib.Python), "step.ts": string(steplib.TypeScript), "python.py": togetherPython, "index.ts": togetherScript,
		"child.py":   "import step\nstep.serve(lambda call: 'child %d' % call.json()['n'])\n",
		"counter.py": "import lib\ndef count(r):\n    n = int(lib.state('GET', 'shared/n')[1] or 0) + 1\n    lib.state('POST', 'shared', '[{\"key\":\"n\",\"value\":%d}]' % n)\n    r.answer(200, n)\nlib.serve(count)\n",
		"quipu.yaml": function("python", "python.py", "python", "durable: true") + function("script", "", "node", "durable: true") + function("program", "program", "exec", "durable: true") +
			function("child", "child.py", "python", "durable: true") + function("counter", "counter.py", "python", "atomic: true")}
	program := filepath.Join(t.TempDir(), "program")
	if out, err := exec.Command("go", "build", "-o", program, "./testdata/together").CombinedOutput(); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	text, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	app["program"] = string(text)
	n := start(t, unconfined)
	n.deploy(app)
	for i, function := range []string{"python", "script", "program"} {
		a := n.post("/"+function+"/", "{}")
		want := `["A","B","child 1",` + string(rune('1'+i)) + `,"broken",true]`
		if got := strings.ReplaceAll(strings.TrimSpace(a.body), ", ", ","); a.status != 200 || got != want {
			t.Errorf("%s: %d %s, want %s", function, a.status, a.body, want)
		}
	}
}
