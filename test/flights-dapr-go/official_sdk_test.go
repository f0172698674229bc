// Package flightsdaprgo runs the flights example with the official Go SDK of Dapr, unmodified: it serves over HTTP, and
// its client speaks gRPC. The application is a module of its own, since the SDK is no dependency of ours.
package flightsdaprgo

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/quipu-run/quipu/test/flights"
)

// The application is atomic, so not even kills make it lose or double a flight.
func TestFlightsWithTheOfficialSDKAreCountedExactlyOnce(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", t.TempDir(), ".")
	cmd.Dir, cmd.Env = "app", append(os.Environ(), "GOPROXY=off", "GOFLAGS=-mod=readonly", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		if strings.Contains(string(out), "GOPROXY=off") {
			t.Skip("run go mod download in app first")
		}
		t.Fatalf("%v\n%s", err, out)
	}
	flights.Demo(t, "../..", "app", 2000)
}
