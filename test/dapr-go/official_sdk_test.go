// Package daprgo runs the official Go SDK of Dapr, unmodified, as a client and as applications over HTTP and gRPC,
// against our doors. The programs are a module of their own, in shop-go, since the SDK is no dependency of ours; it is
// also an application that a node can deploy as it is.
package daprgo

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quipu-run/quipu/internal/secret"
	"github.com/quipu-run/quipu/test/daprnode"
)

func TestTheOfficialSDKWorksUnchanged(t *testing.T) {
	bin := build(t)
	text, err := os.ReadFile(filepath.Join("shop-go", secret.File))
	if err != nil {
		t.Fatal(err)
	}
	secrets, err := secret.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	n := daprnode.Start(t, secrets.Values())
	n.Run("shop-http", "http", "shop-go", filepath.Join(bin, "shop-http"))
	n.Run("shop-grpc", "grpc", "shop-go", filepath.Join(bin, "shop-grpc"))
	for range 2 { // it may run again against the same node
		n.Client("shop-go", filepath.Join(bin, "check"))
	}
}

func TestTheOfficialSDKDrivesANode(t *testing.T) {
	bin := build(t)
	n := daprnode.Serve(t, filepath.Join("..", ".."))
	n.Deploy("shop-go")
	for range 2 {
		n.Client("shop-go", filepath.Join(bin, "check"), "with files")
	}
}

// Workflows with their worker and their client in one program: it says what each of them came to.
func TestWorkflowsOfTheOfficialSDK(t *testing.T) {
	bin := build(t)
	n := daprnode.Serve(t, filepath.Join("..", ".."))
	for range 2 {
		n.Client("shop-go", filepath.Join(bin, "flows"))
	}
}

// build makes the programs from what is on this machine.
func build(t *testing.T) (bin string) {
	t.Helper()
	bin = t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "./...")
	cmd.Dir, cmd.Env = "shop-go", append(os.Environ(), "GOPROXY=off", "GOFLAGS=-mod=readonly", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		if strings.Contains(string(out), "GOPROXY=off") {
			t.Skip("run go mod download in shop-go first")
		}
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

func TestTheOfficialSDKUsesEveryBlock(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds and runs the program")
	}
	bin := build(t)
	n := daprnode.Serve(t, filepath.Join("..", ".."))
	for range 2 {
		n.Blocks("blocks-go", "grpc", "shop-go", filepath.Join(bin, "blocks"))
	}
}
