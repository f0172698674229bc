package dapr

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/component"
	"github.com/quipu-run/quipu/test/fake"
)

type house struct {
	t   *testing.T
	ns  *fake.Namespace
	opt Options
}

// stopped is a clock that shows when everything here happens.
// secrets are those of the built-in store.
func (h *house) secrets(keys Secrets) {
	h.opt.Components = func(*http.Request) (*component.Set, error) { return component.NewSet(BuiltIn(keys)...), nil }
}

type stopped struct{}

func (stopped) Now() time.Time                       { return fake.Epoch }
func (stopped) After(time.Duration) <-chan time.Time { return nil }

func open(t *testing.T) *house {
	h := &house{t: t, ns: fake.New()}
	h.ns.Add(fake.HTTP("callee", "/callee"), http.HandlerFunc(fake.Echo))
	h.opt = Options{Version: "test", Clock: stopped{}, BodyBytesMax: 4000, Logger: slog.New(slog.DiscardHandler), Session: func(r *http.Request) (quipu.Session, error) {
		return h.ns.Session(OutsideAppID(r)), nil
	}}
	return h
}

// ask answers the status, the body and the headers.
func (h *house) ask(request, body string, headers ...string) (int, string, http.Header) {
	h.t.Helper()
	method, path, _ := strings.Cut(request, " ")
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Host = "127.0.0.1:3500"
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		if name == "Host" {
			r.Host = value
		}
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	Handler(h.opt).ServeHTTP(w, r)
	return w.Code, w.Body.String(), w.Header()
}

func (h *house) want(status int, says string, request, body string, headers ...string) http.Header {
	h.t.Helper()
	got, text, head := h.ask(request, body, headers...)
	if got != status || !strings.Contains(text, says) {
		h.t.Errorf("%s: %d %s, want %d with %s", request, got, text, status, says)
	}
	if got == 204 && text != "" {
		h.t.Errorf("%s: 204 with a body %q", request, text)
	}
	return head
}

const store = "/v1.0/state/statestore"

func TestStateComesBackByteForByte(t *testing.T) {
	h := open(t)
	for _, value := range []string{`"text"`, `{"b": 1,  "a":[1.0e3]}`, `12345678901234567890`, `null`} {
		h.want(204, "", "POST "+store, `[{"key":"k","value":`+value+`}]`)
		if _, got, _ := h.ask("GET "+store+"/k", ""); got != value {
			t.Errorf("wrote %s, read %s", value, got)
		}
	}
	h.want(204, "", "GET "+store+"/missing", "")
	h.want(204, "", "PUT "+store, `[{"key":"a/b c","value":1}]`)
	h.want(200, "1", "GET "+store+"/a%2Fb%20c", "")
	h.want(200, "1", "GET "+store+"?key=a/b%20c", "")
	h.want(204, "", "DELETE "+store+"/a%2Fb%20c", "")
	h.want(204, "", "GET "+store+"/a%2Fb%20c", "")
	h.want(204, "", "DELETE "+store+"/never", "")
	h.want(204, "", "POST "+store, `[]`)
}

func TestKeysOfStatestoreBelongToTheApp(t *testing.T) {
	h := open(t)
	h.want(204, "", "POST "+store, `[{"key":"k","value":1}]`, "dapr-caller-app-id: one")
	h.want(204, "", "GET "+store+"/k", "", "dapr-caller-app-id: two")
	h.want(200, "1", "GET "+store+"/k", "", "dapr-caller-app-id: one")
	h.want(204, "", "POST /v1.0/state/shared", `[{"key":"k","value":2}]`, "dapr-caller-app-id: one")
	h.want(200, "2", "GET /v1.0/state/shared/k", "", "dapr-caller-app-id: two")
}

func TestETags(t *testing.T) {
	h := open(t)
	h.want(204, "", "POST "+store, `[{"key":"k","value":1}]`)
	etag := h.want(200, "1", "GET "+store+"/k", "").Get("ETag")
	h.want(409, "ERR_STATE_SAVE", "POST "+store, `[{"key":"k","value":2,"etag":"00000000000000ff"}]`)
	h.want(400, "ERR_STATE_SAVE", "POST "+store, `[{"key":"k","value":2,"etag":"bad"}]`)
	h.want(409, "ERR_STATE_DELETE", "DELETE "+store+"/k", "", "If-Match: 00000000000000ff")
	h.want(400, "ERR_STATE_DELETE", "DELETE "+store+"/k", "", "If-Match: bad")
	h.want(204, "", "POST "+store, `[{"key":"k","value":2,"etag":"`+etag+`"}]`)
	h.want(409, "possible etag mismatch", "POST "+store, `[{"key":"k","value":3,"etag":"`+etag+`"}]`)
	h.want(204, "", "POST "+store, `[{"key":"k","value":3,"etag":"`+etag+`","options":{"concurrency":"last-write"}}]`)
	h.want(409, "ERR_STATE_SAVE", "POST "+store, `[{"key":"k","value":4,"options":{"concurrency":"first-write"}}]`)
	h.want(204, "", "POST "+store, `[{"key":"new","value":4,"options":{"concurrency":"first-write","consistency":"strong"}}]`)
	h.want(200, "3", "GET "+store+"/k", "")
}

func TestTimeToLive(t *testing.T) {
	h := open(t)
	h.want(204, "", "POST "+store, `[{"key":"k","value":1,"metadata":{"ttlInSeconds":"60"}}]`)
	if got := h.want(200, "1", "GET "+store+"/k", "").Get("metadata.ttlExpireTime"); got != "2026-01-02T03:05:05Z" {
		t.Errorf("expires %q", got)
	}
	h.want(204, "", "POST "+store+"?metadata.ttlInSeconds=120", `[{"key":"k","value":1,"metadata":{"ttlInSeconds":"60"}}]`)
	h.want(200, `"ttlExpireTime":"2026-01-02T03:06:05Z"`, "POST "+store+"/bulk", `{"keys":["k"]}`)
	h.want(204, "", "POST "+store, `[{"key":"k","value":1,"metadata":{"ttlInSeconds":"-1"}}]`)
	if got := h.want(200, "1", "GET "+store+"/k", "").Get("metadata.ttlExpireTime"); got != "" {
		t.Errorf("-1 means for ever, but it expires %q", got)
	}
}

func TestBulkGetAnswersInOrderWithGaps(t *testing.T) {
	h := open(t)
	h.want(204, "", "POST "+store, `[{"key":"a","value":{"x":1}},{"key":"b","value":"two"}]`)
	_, got, _ := h.ask("PUT "+store+"/bulk", `{"keys":["b","none","a"],"parallelism":10}`)
	if want := `[{"key":"b","data":"two","etag":"0000000000000002"},{"key":"none"},{"key":"a","data":{"x":1},"etag":"0000000000000001"}]`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if _, got, _ := h.ask("POST "+store+"/bulk", `{"keys":[]}`); got != "[]" {
		t.Errorf("no keys: %s", got)
	}
}

func TestATransactionHappensWholeOrNotAtAll(t *testing.T) {
	h := open(t)
	h.want(204, "", "POST "+store, `[{"key":"old","value":1}]`)
	h.want(500, "ERR_STATE_TRANSACTION", "POST "+store+"/transaction",
		`{"operations":[{"operation":"upsert","request":{"key":"new","value":1}},{"operation":"delete","request":{"key":"old","etag":"00000000000000ff"}}]}`)
	h.want(204, "", "GET "+store+"/new", "")
	h.want(204, "", "POST "+store+"/transaction",
		`{"operations":[{"operation":"upsert","request":{"key":"new","value":1}},{"operation":"delete","request":{"key":"old"}}],"metadata":{"a":"b"}}`)
	h.want(200, "1", "GET "+store+"/new", "")
	h.want(204, "", "GET "+store+"/old", "")
	h.want(204, "", "POST "+store+"/transaction", `{"operations":[]}`)
}

func TestInvoke(t *testing.T) {
	h := open(t)
	for request, want := range map[string]string{
		"PUT /v1.0/invoke/callee/method/a//b%2Fc?x=1": "PUT /a//b%2Fc?x=1 body",
		"POST /v1.0/invoke/callee.default/method/a":   "POST /a body",
		"GET /v1.0/invoke/callee/method":              "GET / body",
	} {
		h.want(200, want, request, "body")
	}
	head := h.want(200, "PATCH /any/path?q body", "PATCH /any/path?q", "body", "dapr-app-id: callee")
	if head.Get(quipu.HeaderCallID) == "" {
		t.Error("the reply has no call id")
	}
	head = h.want(200, "GET /x", "GET /v1.0/invoke/callee/method/x", "", "Quipu-Revision: r1")
	if head.Get(quipu.HeaderRevision) != "r1" {
		t.Error("the reply does not say which revision answered")
	}
	h.want(404, "r2", "GET /v1.0/invoke/callee/method/x", "", "Quipu-Revision: r2")
	h.want(200, "GET /x", "GET /x", "", "Authorization: Basic ZGFwci1hcHAtaWQ6Y2FsbGVl")
	h.want(500, "failed to invoke, id: nobody, err: ", "GET /v1.0/invoke/nobody/method/x", "")
	h.want(404, "ERR_DIRECT_INVOKE", "GET /v1.0/invoke/callee/x", "")
	h.want(404, "ERR_DIRECT_INVOKE", "GET /v1.0/nothing", "")
	h.want(413, "ERR_DIRECT_INVOKE", "POST /v1.0/invoke/callee/method/x", strings.Repeat("x", 4001))
}

func TestWhoPrefersNotToWaitForAnInvocationGetsItsID(t *testing.T) {
	h := open(t)
	for request, header := range map[string]string{"PUT /v1.0/invoke/callee/method/a%2Fb?x=1": "X: y", "PUT /a%2Fb?x=1": "dapr-app-id: callee"} {
		h.ns.Waiting = nil
		head := h.want(202, `"status":"queued"`, request, "body", header, "Prefer: respond-async", "dapr-caller-app-id: me")
		if head.Get(quipu.HeaderCallID) == "" || head.Get("Location") != "/-/v1/calls/"+head.Get(quipu.HeaderCallID) {
			t.Errorf("%s: %v", request, head)
		}
		c := h.ns.Waiting[0]
		if c.Function != "callee" || c.Path != "/a%2Fb" || c.RawQuery != "x=1" || c.Trigger != "dapr" || c.Header.Get("dapr-caller-app-id") != "me" {
			t.Errorf("%s: %+v", request, c)
		}
	}
	h.want(500, "failed to invoke, id: nobody, err: ", "GET /v1.0/invoke/nobody/method/x", "", "Prefer: respond-async")
	h.want(413, "ERR_DIRECT_INVOKE", "POST /v1.0/invoke/callee/method/x", strings.Repeat("x", 4001), "Prefer: respond-async")
}

func TestBadInputIsRefusedAndChangesNothing(t *testing.T) {
	h := open(t)
	long := strings.Repeat("k", quipu.KeyBytesMax+1)
	for _, c := range []struct {
		status              int
		code, request, body string
	}{
		{400, "state store nope is not found", "GET /v1.0/state/nope/k", ""},
		{400, "ERR_STATE_STORE_NOT_FOUND", "POST /v1.0/state/nope", `[]`},
		{400, "ERR_MALFORMED_REQUEST", "GET " + store + "/a%7C%7Cb", ""},
		{400, "ERR_MALFORMED_REQUEST", "DELETE " + store + "/" + long, ""},
		{400, "ERR_MALFORMED_REQUEST", "POST " + store, `{"key":"k"}`},
		{400, "ERR_MALFORMED_REQUEST", "POST " + store, `[{"value":1}]`},
		{400, "ERR_MALFORMED_REQUEST", "POST " + store, `[{"key":"ok","value":1},{"key":"a||b","value":1}]`},
		{400, "ERR_MALFORMED_REQUEST", "POST " + store, `[{"key":"k","value":1,"metadata":{"ttlInSeconds":5}}]`},
		{400, "ERR_STATE_SAVE", "POST " + store, `[{"key":"k","value":1,"metadata":{"ttlInSeconds":"soon"}}]`},
		{400, "ERR_STATE_SAVE", "POST " + store, `[{"key":"k","value":1,"options":{"concurrency":"maybe"}}]`},
		{400, "ERR_STATE_SAVE", "POST " + store, `[{"key":"k","value":1,"options":{"consistency":"maybe"}}]`},
		{400, "ERR_MALFORMED_REQUEST", "POST " + store + "/bulk", `[]`},
		{400, "ERR_MALFORMED_REQUEST", "POST " + store + "/transaction", `x`},
		{400, "ERR_MALFORMED_REQUEST", "POST " + store + "/transaction", `{"operations":[{"operation":"upsert","request":{"value":1}}]}`},
		{400, "ERR_NOT_SUPPORTED_STATE_OPERATION", "POST " + store + "/transaction", `{"operations":[{"operation":"incr","request":{"key":"k"}}]}`},
		{413, "ERR_BODY_READ", "POST " + store, `[{"key":"k","value":"` + strings.Repeat("x", 5000) + `"}]`},
		{405, "", "GET " + store, ""},
		{405, "", "POST " + store + "/k", ""},
		{405, "", "POST /v1.0/metadata", ""},
		{405, "", "POST /v1.0/healthz", ""},
		{404, "ERR_DIRECT_INVOKE", "GET " + store + "/a/b", ""},
		{400, "ERR_STATE_QUERY", "POST /v1.0-alpha1/state/statestore/query", `{"filter":1}`},
		{403, "ERR_PERMISSION_DENIED", "POST /v1.0/shutdown", ""},
		{400, "ERR_BODY_READ", "PUT /v1.0/metadata/k", strings.Repeat("x", extendedBytesMax+1)},
	} {
		h.want(c.status, c.code, c.request, c.body)
	}
	page, err := h.ns.State("default").List(t.Context(), quipu.StoreDefault, quipu.ListRequest{Limit: 10})
	if err != nil || len(page.Items) != 0 {
		t.Errorf("something was written: %v %v", page, err)
	}
}

func TestTheTokenIsChecked(t *testing.T) {
	h := open(t)
	h.opt.Token, h.opt.RequireToken = "secret", true
	h.want(401, "invalid api token", "GET "+store+"/k", "")
	h.want(401, "invalid api token", "GET "+store+"/k", "", "dapr-api-token: wrong")
	h.want(204, "", "GET "+store+"/k", "", "dapr-api-token: secret")
	h.want(204, "", "GET /v1.0/healthz", "")
	h.want(204, "", "GET /v1.0/healthz/outbound", "")
	for _, sly := range []string{"GET /x/healthz", "GET /v1.0/healthz/x", "POST /v1.0/healthz", "GET /v1.0/healthz/../invoke/callee/method/x"} {
		h.want(401, "invalid api token", sly, "", "dapr-app-id: callee")
	}
	h.opt.RequireToken = false
	h.want(204, "", "GET "+store+"/k", "")
	h.want(401, "", "GET "+store+"/k", "", "dapr-api-token: wrong")
}

func TestWebPagesAndForeignHostsAreRefused(t *testing.T) {
	h := open(t)
	h.want(403, "ERR_PERMISSION_DENIED", "POST "+store, `[{"key":"k","value":1}]`, "Origin: https://evil.example")
	h.want(403, "ERR_PERMISSION_DENIED", "GET "+store+"/k", "", "Host: evil.example")
}

func TestMetadataAndHealth(t *testing.T) {
	h := open(t)
	h.want(200, `"id":"default"`, "GET /v1.0/metadata", "")
	h.want(200, `"name":"statestore"`, "GET /v1.0/metadata", "")
	h.want(204, "", "PUT /v1.0/metadata/color", "blue")
	h.want(204, "", "GET /v1.0/healthz", "")
	h.want(204, "", "GET /v1.0/healthz/outbound", "")
	h.want(204, "", "GET /v1.0/healthz?appid=default", "")
	h.want(500, "ERR_HEALTH_APPID_NOT_MATCH", "GET /v1.0/healthz?appid=other", "")
	door := Handler(h.opt)
	for _, r := range []*http.Request{httptest.NewRequest("PUT", "http://localhost/v1.0/metadata/color", strings.NewReader("blue")), httptest.NewRequest("GET", "http://localhost/v1.0/metadata", nil)} {
		w := httptest.NewRecorder()
		if door.ServeHTTP(w, r); r.Method == "GET" && !strings.Contains(w.Body.String(), `"color":"blue"`) {
			t.Errorf("the attribute is lost: %s", w.Body)
		}
	}
}

func TestOutsideACallAnAtomicFunctionIsToldSo(t *testing.T) {
	h := open(t)
	h.opt.Session = func(*http.Request) (quipu.Session, error) {
		return nil, &quipu.Error{Code: quipu.CodeNoCall, Text: "no call is open"}
	}
	for _, request := range []string{"GET " + store + "/k", "POST " + store, "DELETE " + store + "/k", "GET /v1.0/invoke/callee/method/x"} {
		h.want(409, "Q0507", request, "")
	}
	h.want(200, "runtimeVersion", "GET /v1.0/metadata", "")
	h.want(204, "", "GET /v1.0/healthz?appid=x", "")
}

type broken struct{ quipu.Session }

func (broken) Get(context.Context, string, ...string) ([]quipu.Item, error) {
	return nil, errors.New("the password is hunter2")
}

func TestInternalErrorsDoNotLeak(t *testing.T) {
	h := open(t)
	h.opt.Session = func(*http.Request) (quipu.Session, error) { return broken{h.ns.Session("f")}, nil }
	status, body, _ := h.ask("GET "+store+"/k", "")
	if status != 500 || !strings.Contains(body, "ERR_STATE_GET") || strings.Contains(body, "hunter2") {
		t.Errorf("%d %s", status, body)
	}
}
