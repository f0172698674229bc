// Package daprjs runs the official JavaScript SDK of Dapr, unmodified, as a client and as applications over HTTP and
// gRPC, against our doors.
package daprjs

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/quipu-run/quipu/internal/secret"
	"github.com/quipu-run/quipu/test/daprnode"
)

func TestTheOfficialSDKWorksUnchanged(t *testing.T) {
	installed(t)
	text, err := os.ReadFile(filepath.Join("shop-js", secret.File))
	if err != nil {
		t.Fatal(err)
	}
	secrets, err := secret.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	n := daprnode.Start(t, secrets.Values())
	n.Run("shop-js-http", "http", "shop-js", "node", "shop.js", "http")
	n.Run("shop-js-grpc", "grpc", "shop-js", "node", "shop.js", "grpc")
	for range 2 { // it may run again against the same node
		n.Client(".", "node", "check.js")
	}
}

func TestTheOfficialSDKDrivesANode(t *testing.T) {
	installed(t)
	n := daprnode.Serve(t, filepath.Join("..", ".."))
	n.Deploy("shop-js")
	for range 2 {
		n.Client(".", "node", "check.js")
	}
}

func TestTheOfficialSDKUsesEveryBlock(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds and runs the program")
	}
	installed(t)
	n := daprnode.Serve(t, filepath.Join("..", ".."))
	for _, protocol := range []string{"http", "grpc"} {
		n.Blocks("blocks-js-"+protocol, protocol, ".", "node", "blocks.js", protocol)
	}
}

func installed(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("node_modules/@dapr/dapr"); err != nil {
		t.Skip("run npm install here first")
	}
}

// Actors of the SDK have state, turns, timers and reminders, and leave when they are idle.
func TestTheOfficialSDKHostsActors(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds and runs the program")
	}
	installed(t)
	n := daprnode.Serve(t, filepath.Join("..", ".."))
	for range 2 {
		n.Blocks("zoo-js", "http", ".", "node", "zoo.js")
	}
}

// Chaining, fan-out, a monitor, approval by a person, a saga and children, each with what it must come to.
func TestWorkflowsOfTheOfficialSDK(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds and runs the program")
	}
	installed(t)
	n := daprnode.Serve(t, filepath.Join("..", ".."))
	for range 2 { // it may run again against the same node
		n.Client(".", "node", "flows.js")
	}
}
