// Package flightsdaprjs runs the flights example with the official JavaScript SDK of Dapr, unmodified.
package flightsdaprjs

import (
	"os"
	"testing"

	"github.com/quipu-run/quipu/test/flights"
)

// The application is atomic, so not even kills make it lose or double a flight.
func TestFlightsWithTheOfficialSDKAreCountedExactlyOnce(t *testing.T) {
	if _, err := os.Stat("app/node_modules/@dapr/dapr"); err != nil {
		t.Skip("run npm install in app first")
	}
	flights.Demo(t, "../..", "app", 1000)
}
