package gateway

import (
	"encoding/json"
	"io"
	"net/http"
	"testing"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
	"github.com/quipu-run/quipu/test/fake"
)

func accepted(t *testing.T, r *http.Response) sdk.Accepted {
	t.Helper()
	var a sdk.Accepted
	if err := json.Unmarshal([]byte(text(t, r)), &a); err != nil || r.StatusCode != http.StatusAccepted {
		t.Fatalf("%d, %v", r.StatusCode, err)
	}
	return a
}

// Who prefers not to wait gets 202, where to ask, and the function gets everything but that preference.
func TestWhoPrefersNotToWaitIsAnsweredAtOnce(t *testing.T) {
	for _, path := range []string{"/hello/a%2Fb?x=1", "/-/v1/functions/hello/call/hello/a%2Fb?x=1"} {
		h := open(t, "")
		h.add(fake.HTTP("hello", "/hello/"), func(http.ResponseWriter, *http.Request) { t.Error("the function was called at once") })
		r := h.ask("PUT", path, "body", "Prefer: return=minimal, Respond-Async; wait=10", "Idempotency-Key: k", "X-Own: yes")
		a := accepted(t, r)
		if a.ID != "call-1" || a.Status != quipu.CallQueued || r.Header.Get("Location") != "/-/v1/calls/call-1" ||
			r.Header.Get("Preference-Applied") != "respond-async" || r.Header.Get(quipu.HeaderCallID) != "call-1" {
			t.Errorf("%s: %+v %v", path, a, r.Header)
		}
		c := h.ns.Waiting[0]
		body, err := io.ReadAll(c.Body)
		if err != nil || string(body) != "body" || c.Method != "PUT" || c.Path != "/hello/a%2Fb" || c.RawQuery != "x=1" ||
			c.IdempotencyKey != "k" || c.Header.Get("X-Own") != "yes" || c.Header.Get("Prefer") != "return=minimal" {
			t.Errorf("%s: %q %+v, %v", path, body, c, err)
		}
	}
}

func TestAnotherPreferenceIsTheFunctionsBusiness(t *testing.T) {
	h := open(t, "")
	h.add(fake.HTTP("hello", "/hello/"), func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Header.Get("Prefer")) })
	for _, prefer := range []string{"respond-async-or-not", "return=representation", `x="respond-async"`} {
		if r := h.ask("GET", "/hello/", "", "Prefer: "+prefer); r.StatusCode != 200 || text(t, r) != prefer {
			t.Errorf("%s was answered with %d", prefer, r.StatusCode)
		}
	}
	if len(h.ns.Waiting) != 0 {
		t.Errorf("%d calls wait", len(h.ns.Waiting))
	}
}

// The result of a call is told from the answer that there is none yet by the id that a function's reply carries.
func TestTheResultOfACallIsTheFunctionsReply(t *testing.T) {
	h := open(t, "")
	h.add(fake.HTTP("hello", "/hello/"), fake.Echo)
	h.ask("GET", "/hello/", "", "Prefer: respond-async")
	r := h.ask("GET", "/-/v1/calls/call-1/result", "")
	if a := accepted(t, r); a.Status != quipu.CallQueued || r.Header.Get("Retry-After") == "" || r.Header.Get(quipu.HeaderCallID) != "" {
		t.Errorf("while it waits: %+v %v", a, r.Header)
	}
	h.ask("POST", "/-/v1/calls/call-1/cancel", "")
	if r := h.ask("GET", "/-/v1/calls/call-1/result", ""); r.StatusCode != http.StatusGone {
		t.Errorf("when it was cancelled: %d", r.StatusCode)
	}
	h.ask("GET", "/hello/", "")
	r = h.ask("GET", "/-/v1/calls/call-2/result", "")
	if r.StatusCode != 200 || r.Header.Get("X-Own") != "yes" || r.Header.Get(quipu.HeaderCallID) != "call-2" || text(t, r) != "short and stout" {
		t.Errorf("when it has ended: %d %v", r.StatusCode, r.Header)
	}
}

// What a function gets may be kept in the log: the node's token is for the node.
func TestTheNodesTokenIsInNoCall(t *testing.T) {
	h := open(t, "secret")
	h.add(fake.HTTP("hello", "/hello/"), fake.Echo)
	for _, header := range []string{"Quipu-Token: secret", "Authorization: Bearer secret"} {
		h.ns.Waiting = nil
		accepted(t, h.ask("POST", "/-/v1/functions/hello/call/", "", header, "Prefer: respond-async"))
		if got := h.ns.Waiting[0].Header; got.Get("Authorization") != "" || got.Get(sdk.HeaderToken) != "" {
			t.Errorf("%s is in the call: %v", header, got)
		}
	}
	h.ns.Waiting = nil
	accepted(t, h.ask("POST", "/-/v1/functions/hello/call/", "", "Quipu-Token: secret", "Authorization: Bearer of-the-user", "Prefer: respond-async"))
	if got := h.ns.Waiting[0].Header.Get("Authorization"); got != "Bearer of-the-user" {
		t.Errorf("the function would get %q", got)
	}
}
