package tidy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const (
	module           = "github.com/quipu-run/quipu"
	functionLinesMax = 70
)

// layers go from the bottom up: a package may import only packages of lower layers, so that
// siblings never import each other. "x/..." is x and all below it; the longest match counts.
var layers = [][]string{
	{"."},
	{"api/...", "internal/...", "xtest/...", "sdk/..."},
	{"view", "tier", "ledger"},
	{
		"locallog", "clusterlog", "kv", "topic", "workflow", "files", "bucket", "query", "scratch",
		"timer", "lease", "alarm", "step", "actor",
		"deploy", "call", "pool", "process/...", "wasm", "pod", "contract/...", "trigger", "meter",
		"gateway/...", "component/...", "console", "operator",
	},
	{"server"},
	{"cmd/..."},
}

// siblings that may import each other all the same.
var allowed = map[[2]string]string{
	{"gateway/*", "gateway"}:     "a door may import gateway",
	{"internal/*", "internal/*"}: "helpers may use each other",
	{"sdk", "api/*"}:             "the client speaks the generated protocol",
	{"sdk/*", "sdk/*"}:           "libraries may use each other",
	{"sdk", "internal/*"}:        "helpers are for everybody",
	{"sdk/*", "internal/*"}:      "helpers are for everybody",
	{"xtest", "internal/*"}:      "the suites check with the platform's own pure parts",
	{"process/*", "process/*"}:   "one runtime, in parts",
	{"cmd/*", "cmd/*"}:           "one program, in parts",
}

// free trees are outside the product: programs beside it, which may import anything.
var free = []string{"bench", "examples", "test"}

func TestImportsGoStrictlyDown(t *testing.T) {
	eachFile(t, func(pkg, path string, file *ast.File) {
		if isFree(pkg) || strings.HasSuffix(path, "_test.go") {
			return
		}
		if layerOf(pkg) < 0 {
			t.Errorf("%s: package %q is in no layer: add it to layers", path, pkg)
			return
		}
		for _, imp := range file.Imports {
			target, ours := strings.CutPrefix(strings.Trim(imp.Path.Value, `"`), module)
			if !ours {
				checkForeign(t, pkg, path, imp)
				continue
			}
			to := strings.TrimPrefix(target, "/")
			if to == "" {
				to = "."
			}
			if layerOf(to) >= layerOf(pkg) && !isAllowed(pkg, to) {
				t.Errorf("%s: %q may not import %q", path, pkg, to)
			}
		}
	})
}

// checkForeign keeps the contract on the standard library.
func checkForeign(t *testing.T, pkg, path string, imp *ast.ImportSpec) {
	name, _ := strconv.Unquote(imp.Path.Value)
	if pkg == "." && strings.Contains(strings.Split(name, "/")[0], ".") {
		t.Errorf("%s: the contract imports %q; only the standard library is allowed", path, name)
	}
}

func TestFunctionsAreShort(t *testing.T) {
	fset := token.NewFileSet()
	eachFileIn(t, fset, func(_, path string, file *ast.File) {
		ast.Inspect(file, func(n ast.Node) bool {
			fn, ok := n.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				return true
			}
			lines := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line + 1
			if lines > functionLinesMax {
				t.Errorf("%s: %s has %d lines, more than %d", fset.Position(fn.Pos()), fn.Name.Name, lines, functionLinesMax)
			}
			return true
		})
	})
}

func eachFile(t *testing.T, visit func(pkg, path string, file *ast.File)) {
	eachFileIn(t, token.NewFileSet(), visit)
}

// eachFileIn parses every Go file of the module that people wrote.
func eachFileIn(t *testing.T, fset *token.FileSet, visit func(pkg, path string, file *ast.File)) {
	t.Helper()
	root := filepath.Join("..", "..")
	files := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "node_modules") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(fset, path, src, parser.ParseComments)
		if err != nil {
			return err
		}
		if ast.IsGenerated(file) {
			return nil
		}
		pkg, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		files++
		visit(filepath.ToSlash(pkg), path, file)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 10 {
		t.Fatalf("only %d files found: the walk is broken", files)
	}
}

func isFree(pkg string) bool {
	for _, tree := range free {
		if pkg == tree || strings.HasPrefix(pkg, tree+"/") {
			return true
		}
	}
	return false
}

func isAllowed(from, to string) bool {
	for pair := range allowed {
		if matches(pair[0], from) && matches(pair[1], to) {
			return true
		}
	}
	return false
}

// matches compares a package with "x" or "x/*", which stands for x and all below it.
func matches(pattern, pkg string) bool {
	tree, deep := strings.CutSuffix(pattern, "/*")
	return pkg == tree || deep && strings.HasPrefix(pkg, tree+"/")
}

// layerOf is the index of the layer whose pattern fits pkg, -1 if there is none.
func layerOf(pkg string) int {
	for i, layer := range layers {
		for _, pattern := range layer {
			if tree, deep := strings.CutSuffix(pattern, "/..."); pkg == tree || deep && strings.HasPrefix(pkg, tree+"/") {
				return i
			}
		}
	}
	return -1
}
