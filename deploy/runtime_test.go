package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/quipu-run/quipu"
)

// What one function is called says nothing about the next one: the defaults of a runtime stay what they are.
func TestASourceFileDoesNotBecomeTheDefaultOfItsRuntime(t *testing.T) {
	python := runtimes["python"].command
	if got := python("./src/stats.py", false); !slices.Equal(got, []string{"python3", "stats.py"}) {
		t.Errorf("a file is started with %q", got)
	}
	if got := python("./hello", true); !slices.Equal(got, []string{"python3", "main.py"}) {
		t.Errorf("a folder, after a file, is started with %q", got)
	}
}

// A function of Node starts with TypeScript where it has no JavaScript to start with, and nothing else says how.
func TestAFunctionInTypeScriptIsBuiltByItsDeploy(t *testing.T) {
	node := func(source string) string {
		return "---\napiVersion: quipu.dev/v1\nkind: Function\nmetadata: {name: f}\nspec: {runtime: node, source: " + source + "}\n"
	}
	built := []string{"node", "--enable-source-maps", ".quipu-function.mjs"}
	for name, c := range map[string]struct {
		source  string
		files   []string
		command []string
	}{
		"index.ts":            {"./src", []string{"src/index.ts\nexport {}"}, built},
		"main.ts":             {".", []string{"main.ts\nexport {}"}, built},
		"a file":              {"./src/other.ts", []string{"src/other.ts\nexport {}"}, built},
		"JavaScript is there": {"./src", []string{"src/index.ts\nexport {}", "src/index.js\n"}, []string{"node", "index.js"}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath("node"); err != nil {
				t.Skip("node is not on this machine")
			}
			w := newWorld(t)
			if _, err := w.Deploy(w.ctx, "app", pack(t, append(c.files, "quipu.yaml\n"+node(c.source))...), quipu.DeployOptions{}); err != nil {
				t.Fatal(err)
			}
			f, err := w.Function("f")
			if err != nil || !slices.Equal(f.Spec.Command, c.command) {
				t.Errorf("it is started by %q, %v", f.Spec.Command, err)
			}
			dir, err := w.Prepare(w.ctx, f)
			if err != nil {
				t.Fatal(err)
			}
			_, err = os.Stat(filepath.Join(dir, f.Spec.Command[len(f.Spec.Command)-1]))
			if err != nil {
				t.Errorf("what is started is not there: %v", err)
			}
		})
	}
}

func TestAMistakeInTypeScriptRefusesTheDeploy(t *testing.T) {
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("node is not on this machine")
	}
	w := newWorld(t)
	packed := pack(t, "index.ts\nconst a: number = ;", "quipu.yaml\napiVersion: quipu.dev/v1\nkind: Function\nmetadata: {name: f}\nspec: {runtime: node}\n")
	_, err := w.Deploy(w.ctx, "app", packed, quipu.DeployOptions{})
	if quipu.CodeOf(err) != quipu.CodeBuild || !strings.Contains(err.Error(), "index.ts:1:18") {
		t.Errorf("got %v", err)
	}
}
