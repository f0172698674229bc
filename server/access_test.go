package server

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// refused is the code that a node which must not start ends with.
func refused(t *testing.T, cfg Config) quipu.Code {
	t.Helper()
	cfg.Ready = func(sdk.Node) { t.Error("the node started") }
	return quipu.CodeOf(Run(t.Context(), cfg))
}

func TestATakenPortIsRefusedAndChangesNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	data := filepath.Join(t.TempDir(), "data")
	if code := refused(t, Config{Data: data, Port: port}); code != quipu.CodePortTaken {
		t.Errorf("the main port: %s", code)
	}
	if code := refused(t, Config{Data: data, DaprHTTPPort: port}); code != quipu.CodePortTaken {
		t.Errorf("Dapr's port: %s", code)
	}
	if _, err := os.Stat(data); !os.IsNotExist(err) {
		t.Errorf("a data directory was made: %v", err)
	}
}

func TestASecondNodeOnTheSameDataIsRefusedAndTheFirstGoesOn(t *testing.T) {
	n := start(t)
	n.python(versioned(1))
	if code := refused(t, Config{Data: n.data}); code != quipu.CodeDataInUse {
		t.Errorf("in the same process: %s", code)
	}
	second := command(t, "serve", "--data", n.data, "--port", "0", "--dapr-http-port", "0", "--dapr-grpc-port", "0")
	second.wantExit(1)
	second.wantErr(string(quipu.CodeDataInUse))
	n.get("/f/").want(t, 200, "1")
	if _, err := os.Stat(filepath.Join(n.data, nodeFile)); err != nil {
		t.Errorf("the first node cannot be found any more: %v", err)
	}
}

func TestBeyondLoopbackANodeNeedsAToken(t *testing.T) {
	for _, host := range []string{"0.0.0.0", "::"} {
		if code := refused(t, Config{Data: t.TempDir(), Listen: host}); code != quipu.CodeOpenListen {
			t.Errorf("%s: %s", host, code)
		}
	}
}

func TestATokenIsAskedForByWhatIsOurs(t *testing.T) {
	n := start(t, func(c *Config) { c.Token = "secret" })
	n.python(versioned(1))
	n.get("/f/").want(t, 200, "1") // routes are the user's
	n.get("/-/healthz").want(t, 200, "ok\n")
	n.get("/-/v1/functions").wantCode(t, quipu.CodeToken)
	n.get("/-/v1/functions", "Authorization", "Bearer wrong").wantCode(t, quipu.CodeToken)
	if a := n.get("/-/v1/functions", "Authorization", "Bearer secret"); a.status != 200 {
		t.Errorf("with the token: %d %s", a.status, a.body)
	}
	outside := "http://" + n.info.DaprHTTP + "/v1.0/state/shared/k"
	if a := ask("GET", outside, ""); a.status != 401 {
		t.Errorf("Dapr's API without the token: %d", a.status)
	}
	if a := ask("GET", outside, "", "dapr-api-token", "secret"); a.status != 204 {
		t.Errorf("Dapr's API with the token: %d %s", a.status, a.body)
	}
}

func TestWithoutATokenForeignPagesAndHostsAreRefused(t *testing.T) {
	n := start(t)
	n.get("/-/v1/functions", "Host", "evil.example").wantCode(t, quipu.CodeOrigin)
	n.get("/-/v1/functions", "Origin", "http://evil.example").wantCode(t, quipu.CodeOrigin)
	if a := ask("GET", "http://"+n.info.DaprHTTP+"/v1.0/state/shared/k", "", "Origin", "http://evil.example"); a.status != 403 {
		t.Errorf("Dapr's API, from a foreign page: %d", a.status)
	}
}
