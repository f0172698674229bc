package script

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quipu-run/quipu"
)

// app is a folder with files: names and texts by turns.
func app(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		path := filepath.Join(dir, files[i])
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(files[i+1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// node runs a built file, and answers all that it printed.
func node(t *testing.T, file string) string {
	t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("node is not on this machine")
	}
	out, _ := exec.Command("node", "--enable-source-maps", file).CombinedOutput() // some are to fail
	return string(out)
}

func TestTypesGoAndWhatIsImportedComesAlong(t *testing.T) {
	dir := app(t, "src/index.ts", `
import { readFileSync } from 'node:fs';
import { double } from './lib.js';
import shout from 'shout';
const __dirname: string = 'mine';
const n: number = await Promise.resolve(21);
console.log(shout(String(double(n))), typeof readFileSync, __dirname);
`, "src/lib.ts", "export const double = (n: number): number => n * 2;\n",
		"node_modules/shout/package.json", `{"name":"shout","main":"main.js"}`,
		"node_modules/shout/main.js", "const path = require('path'); module.exports = (s) => path.posix.join(s, '!');\n")
	out := filepath.Join(dir, "out.mjs")
	if err := Bundle(dir, "src/index.ts", out); err != nil {
		t.Fatal(err)
	}
	if got := node(t, out); got != "42/! function mine\n" {
		t.Errorf("it printed %q", got)
	}
}

func TestAStackTraceNamesTheLineOfTheSource(t *testing.T) {
	dir := app(t, "index.ts", "interface Unused { a: string }\n\nfunction fail(why: string): never {\n  throw new Error(why);\n}\nfail('on line 4');\n")
	out := filepath.Join(dir, "out.mjs")
	if err := Bundle(dir, "index.ts", out); err != nil {
		t.Fatal(err)
	}
	if got := node(t, out); !strings.Contains(got, "index.ts:4:9") {
		t.Errorf("the trace does not name the line: %s", got)
	}
}

func TestAMistakeIsShownWithItsLine(t *testing.T) {
	dir := app(t, "index.ts", "const a: number = 1;\nconst b = = 2;\n")
	err := Bundle(dir, "index.ts", filepath.Join(dir, "out.mjs"))
	if quipu.CodeOf(err) != quipu.CodeBuild || !strings.Contains(err.Error(), "index.ts:2:10") || !strings.Contains(err.Error(), "const b = = 2;") {
		t.Errorf("got %v", err)
	}
	err = Bundle(app(t, "index.ts", "import 'left-pad';\n"), "index.ts", filepath.Join(dir, "out.mjs"))
	if quipu.CodeOf(err) != quipu.CodeBuild || !strings.Contains(err.Error(), `"left-pad"`) || !strings.Contains(quipu.AsError(err).Hint, "npm, ci") {
		t.Errorf("a package that is not there: %v", err)
	}
}

func TestWhatLiesOutsideOfTheApplicationIsRefused(t *testing.T) {
	dir := app(t, "secret.ts", "export default 1;\n", "app/index.ts", "import s from '../secret.js';\nconsole.log(s);\n")
	out := filepath.Join(dir, "out.mjs")
	err := Bundle(filepath.Join(dir, "app"), "index.ts", out)
	if quipu.CodeOf(err) != quipu.CodeBuild || !strings.Contains(err.Error(), "secret.ts, which is outside") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(out); !os.IsNotExist(err) {
		t.Errorf("it was built all the same: %v", err)
	}
}
