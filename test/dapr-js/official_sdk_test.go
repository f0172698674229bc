// Package daprjs runs the official JavaScript SDK of Dapr, unmodified, against our door.
package daprjs

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/gateway/dapr"
	"github.com/quipu-run/quipu/test/fake"
)

func TestTheOfficialSDKWorksUnchanged(t *testing.T) {
	if _, err := os.Stat("node_modules/@dapr/dapr"); err != nil {
		t.Skip("run npm install here first")
	}
	ns := fake.New()
	ns.Add(fake.HTTP("callee", "/callee"), http.HandlerFunc(fake.Echo))
	door := httptest.NewServer(dapr.Handler(dapr.Options{Token: "secret", RequireToken: true,
		Session: func(*http.Request) (quipu.Session, error) { return ns.Session("caller"), nil }}))
	defer door.Close()
	cmd := exec.CommandContext(t.Context(), "node", "check.js")
	cmd.Env = append(os.Environ(), "DAPR_API_TOKEN=secret", "DAPR_HTTP_PORT="+door.URL[strings.LastIndex(door.URL, ":")+1:])
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasSuffix(strings.TrimSpace(string(out)), "ok") {
		t.Errorf("%v\n%s", err, out)
	}
}
