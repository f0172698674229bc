package conformance

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// claim is what upstream says that a component can do.
type claim struct {
	Component  string
	Operations []string
	Config     map[string]any
}

// upstream is the folder of components-contrib.
func upstream(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/dapr/components-contrib").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func claims(t *testing.T, kind string) []claim {
	t.Helper()
	var all struct{ Components []claim }
	text, err := os.ReadFile(filepath.Join(upstream(t), "tests", "config", kind, "tests.yml"))
	if err == nil {
		err = yaml.Unmarshal(text, &all)
	}
	if err != nil {
		t.Fatal(err)
	}
	return all.Components
}

// claimOf is what upstream says of one component.
func claimOf(t *testing.T, kind, component string) claim {
	t.Helper()
	all := claims(t, kind)
	i := slices.IndexFunc(all, func(c claim) bool { return c.Component == component })
	if i < 0 {
		t.Fatalf("upstream tests no %s %s", kind, component)
	}
	return all[i]
}

// everything is what any of upstream's components of a kind can do.
func everything(t *testing.T, kind string) (operations []string) {
	t.Helper()
	for _, c := range claims(t, kind) {
		operations = append(operations, c.Operations...)
	}
	slices.Sort(operations)
	if operations = slices.Compact(operations); len(operations) == 0 {
		t.Fatalf("upstream claims nothing of %s", kind)
	}
	return operations
}
