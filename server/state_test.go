package server

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/quipu-run/quipu"
)

// relay does at its own Dapr listener, or at that of X-Door, what a test asks for, and answers the status and text.
const relay = `
import lib, os
def handle(r):
    if r.path.endswith("/door"):
        return r.answer(200, os.environ["DAPR_HTTP_PORT"] + " " + os.environ["DAPR_API_TOKEN"])
    os.environ["DAPR_HTTP_PORT"] = r.headers.get("X-Door", os.environ["DAPR_HTTP_PORT"])
    body = r.body
    if r.headers.get("X-Size"):
        body = b'[{"key":"big","value":"' + b"x" * (int(r.headers["X-Size"]) - 2) + b'"}]'
    status, text = lib.state(r.headers["X-Method"], r.headers["X-Path"], body, r.headers.get("X-Token"))
    r.answer(200, "%d %d " % (status, len(text)) + text[:200].decode())
lib.serve(handle)`

func (n *node) relay(method, path, body string, header ...string) string {
	n.t.Helper()
	a := n.post("/f/", body, append([]string{"X-Method", method, "X-Path", path}, header...)...)
	if a.status != 200 {
		n.t.Fatalf("the function answered %d %s", a.status, a.body)
	}
	return a.body
}

func TestAnInstanceProvesItselfAtItsOwnListener(t *testing.T) {
	n := start(t, unconfined)
	n.deploy(files{"quipu.yaml": function("f", "f.py", "python") + function("g", "f.py", "python"), "f.py": relay})
	const path = "shared/k"
	if got := n.relay("GET", path, "", "X-Token", "wrong"); !strings.HasPrefix(got, "401 ") {
		t.Errorf("with a wrong token: %s", got)
	}
	_, others, _ := strings.Cut(n.get("/g/door").body, " ")
	if got := n.relay("GET", path, "", "X-Token", others); !strings.HasPrefix(got, "401 ") {
		t.Errorf("with the token of another instance: %s", got)
	}
	if got := n.relay("GET", path, ""); !strings.HasPrefix(got, "204 ") {
		t.Errorf("with its own: %s", got)
	}
	door, _, _ := strings.Cut(n.get("/f/door").body, " ")
	if a := ask("GET", "http://127.0.0.1:"+door+"/v1.0/state/"+path, ""); a.status != 401 {
		t.Errorf("without any token: %d %s", a.status, a.body)
	}
}

func TestAKeyOfOneFunctionIsNotThatOfAnother(t *testing.T) {
	n := start(t)
	n.deploy(files{"quipu.yaml": function("f", "f.py", "python") + function("g", "f.py", "python"), "f.py": relay})
	if got := n.relay("POST", "statestore", `[{"key":"k","value":1}]`); !strings.HasPrefix(got, "204 ") {
		t.Fatal(got)
	}
	n.post("/g/", "", "X-Method", "GET", "X-Path", "statestore/k").want(t, 200, "204 0 ")
	if got := n.relay("GET", "statestore/k", ""); got != "200 1 1" {
		t.Error(got)
	}
}

func TestBadKeysAndSizesAreRefusedAndLargeValuesKeptWhole(t *testing.T) {
	for _, kind := range []string{"atomic: false", "atomic: true"} {
		t.Run(kind, func(t *testing.T) {
			n := start(t)
			n.python(relay, kind)
			for name, body := range map[string]string{
				"a key with ||": `[{"key":"a||b","value":1}]`, "an empty key": `[{"key":"","value":1}]`,
				"a long key": `[{"key":"` + strings.Repeat("k", quipu.KeyBytesMax+1) + `","value":1}]`,
				"no JSON":    `{`, "a bad ttl": `[{"key":"k","value":1,"metadata":{"ttlInSeconds":"soon"}}]`,
			} {
				if got := n.relay("POST", "shared", body); !strings.HasPrefix(got, "400 ") {
					t.Errorf("%s: %s", name, got)
				}
			}
			if got := n.relay("POST", "shared", "", "X-Size", "2097152"); !strings.HasPrefix(got, "204 ") {
				t.Fatalf("2 MiB: %s", got)
			}
			if got := n.relay("GET", "shared/big", ""); !strings.HasPrefix(got, "200 2097152 ") {
				t.Errorf("2 MiB read back: %.100s", got)
			}
			if got := n.state("big"); got != `"`+strings.Repeat("x", 2097150)+`"` {
				t.Errorf("2 MiB outside: %d bytes", len(got))
			}
			if got := n.relay("POST", "shared", "", "X-Size", "41943040"); !strings.HasPrefix(got, "413 ") {
				t.Errorf("40 MiB: %s", got)
			}
			if got := n.state("big"); len(got) != 2097152 {
				t.Errorf("after the refusal the value has %d bytes", len(got))
			}
		})
	}
}

func TestATimeToLiveEnds(t *testing.T) {
	n := start(t)
	n.python(relay)
	n.relay("POST", "shared", `[{"key":"k","value":1,"metadata":{"ttlInSeconds":"1"}},{"key":"stays","value":2}]`)
	item, err := n.client.State(quipu.StoreShared, "").Get(t.Context(), "k")
	if err == nil && item.Expires == 0 || err != nil && quipu.CodeOf(err) != quipu.CodeNotFound {
		t.Errorf("just written: %+v, %v", item, err)
	}
	eventually(t, "the key has expired", func() bool { return n.relay("GET", "shared/k", "") == "204 0 " })
	if n.state("stays") != "2" {
		t.Error("a key without a time to live is gone")
	}
}

// The metadata of Dapr's door tells an app who it is.
func TestAnInstanceIsToldWhoItIs(t *testing.T) {
	n := start(t, func(c *Config) { c.InstanceToken, c.Unconfined = false, true })
	n.python(relay)
	door, _, _ := strings.Cut(n.get("/f/door").body, " ")
	a := ask("GET", "http://127.0.0.1:"+door+"/v1.0/metadata", "")
	var meta struct{ ID string }
	if err := json.Unmarshal([]byte(a.body), &meta); err != nil || meta.ID != "f" {
		t.Errorf("%d %s: %v", a.status, a.body, err)
	}
}
