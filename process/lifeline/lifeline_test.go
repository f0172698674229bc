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
	want := Request{Path: "/bin/echo", Dir: "/tmp", Args: []string{"echo", "", "two words\n"}, Env: []string{"A=1", "B="}, Walls: Walls{
		Up: true, Ports: []uint64{3500, 50001}, Socket: "/run/s", Port: 8080, Stage: "/stage",
		Mounts: []Mount{{MountBind, "/usr", "/usr", 1}, {Kind: MountReadOnly}}, ID: 1 << 40, Limits: []uint64{7, 1024}, Caps: 41,
		Handled: 1<<16 - 1, HandledNet: 2, Scoped: 3, Rules: []Rule{{"/", 12}}, Filter: []byte("\x00\x01filter"), Notify: true}}
	buf := want.Encode()
	got, ok := decode(buf[4:])
	if !ok || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, ok)
	}
	for n := range len(buf) - 4 {
		if _, ok := decode(buf[4 : 4+n]); ok { // nor may it panic
			t.Errorf("the first %d of %d bytes are taken for a request", n, len(buf)-4)
		}
	}
}

func TestNumbers(t *testing.T) {
	for n, want := range map[int]string{0: "0", 7: "7", -256: "-256", 139: "139"} {
		if got := string(appendInt(nil, n)); got != want {
			t.Errorf("%d is written %q", n, got)
		}
	}
}
