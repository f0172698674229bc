package lifeline

import (
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestTheHelperTakesOverBeforeOtherPackages pins what its place in the order of initialisation hangs on:
// the imports, and that nothing is initialised by package-level variables of its own.
func TestTheHelperTakesOverBeforeOtherPackages(t *testing.T) {
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), f.Name(), nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, imp := range file.Imports {
			if !slices.Contains([]string{`"syscall"`, `"unsafe"`}, imp.Path.Value) {
				t.Errorf("%s imports %s", f.Name(), imp.Path.Value)
			}
		}
	}
}

func TestARequestSurvivesItsByteForm(t *testing.T) {
	want := Request{Path: "/bin/echo", Dir: "/tmp", Args: []string{"echo", "", "two words\n"}, Env: []string{"A=1", "B="}}
	buf := want.Encode()
	if length(buf) != len(buf)-4 {
		t.Fatalf("length %d of %d", length(buf), len(buf)-4)
	}
	got, ok := decode(buf[4:])
	if !ok || !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, %v", got, ok)
	}
	for n := range len(buf) - 4 {
		decode(buf[4 : 4+n]) // must not panic
	}
}

func TestNumbers(t *testing.T) {
	for n, want := range map[int]string{0: "0", 7: "7", -256: "-256", 139: "139"} {
		if got := string(appendInt(nil, n)); got != want {
			t.Errorf("%d is written %q", n, got)
		}
	}
}
