package daprgo

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quipu-run/quipu/test/daprnode"
)

const zoo = `apiVersion: quipu.dev/v1
kind: Function
metadata: {name: zoo}
spec: {source: ./zoo, runtime: go, contract: dapr, protocol: http}
`

// deployZoo deploys the host of actors alone.
func deployZoo(t *testing.T, n *daprnode.Program) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "zoo")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "quipu.yaml"), []byte(zoo), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "zoo"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"go.mod", "go.sum", "zoo/main.go"} {
		text, err := os.ReadFile(filepath.Join("shop-go", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	n.Deploy(dir)
}

// Actors of the official SDK have state, turns, timers and reminders, and a reminder comes though the node was killed before.
func TestTheOfficialSDKHostsActors(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds and runs the program")
	}
	bin := build(t)
	n := daprnode.Serve(t, filepath.Join("..", ".."))
	deployZoo(t, n)
	check := func(args ...string) {
		t.Helper()
		n.Client("shop-go", append([]string{filepath.Join(bin, "zoo-check")}, args...)...)
	}
	check("Feed", "tom", "3", "3")
	check("Feed", "tom", "4", "7")
	check("Fail", "kit", "1", "?")
	check("crowd", "max")
	check("Tick", "tom", `"tick"`, "0")
	check("Calls", "tom", `"tick"`, "3")
	check("Remind", "tom", `"lunch"`, "0")
	n.Crash()
	check("Calls", "tom", `"lunch=\"fish\""`, "1")
	check("Feed", "tom", "1", "8")
	for _, list := range []string{"actors", "leases"} {
		if text := run(t, n.Command(list, "ls")); !strings.Contains(string(text), "tom") {
			t.Errorf("quipu %s ls says nothing of tom: %s", list, text)
		}
	}
}
