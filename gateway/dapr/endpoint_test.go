package dapr

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/component"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
)

// outside is a server of the world outside, and lets the door call it as the endpoint "out" and by its URL.
func (h *house) outside() (address string, seen *http.Request) {
	seen = &http.Request{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		*seen = *r
		w.Header().Set("X-Own", "1")
		switch r.URL.Path {
		case "/base/away":
			http.Redirect(w, r, "http://other.example/", http.StatusFound)
		case "/base/teapot":
			w.WriteHeader(http.StatusTeapot)
		}
		_, _ = io.WriteString(w, r.Method+" "+r.URL.RequestURI()+" "+string(body))
	}))
	h.t.Cleanup(s.Close)
	h.opt.Endpoint = func(_ *http.Request, name string) (Endpoint, bool) {
		switch {
		case name == "out" || name == "out.name":
			return Endpoint{BaseURL: s.URL + "/base/", Header: http.Header{"X-Key": {"hunter2"}}}, true
		case isURL(name):
			return Endpoint{BaseURL: name}, true
		}
		return Endpoint{}, false
	}
	return s.URL, seen
}

func TestAnEndpointOutsideIsInvokedByItsNameOrItsURL(t *testing.T) {
	h := open(t)
	address, seen := h.outside()
	head := h.want(200, "PUT /base/a%2Fb?q=1 body", "PUT /v1.0/invoke/out/method/a%2Fb?q=1", "body", "X-Mine: 2", "X-Key: mine")
	if head.Get("X-Own") != "1" || len(head.Values(quipu.HeaderCallID)) != 0 {
		t.Errorf("%v", head)
	}
	if s := seen.Header; s.Get("X-Mine") != "2" || s.Get("X-Key") != "hunter2" || s.Get("dapr-caller-app-id") != "default" || s.Get("dapr-app-id") != "" {
		t.Errorf("the endpoint sees %v", s)
	}
	h.want(200, "GET /base/x ", "GET /x", "", "dapr-app-id: out.name")
	h.want(200, "POST /deep/method/x hi", "POST /v1.0/invoke/"+address+"/method/deep/method/x", "hi")
	h.want(200, "POST /x hi", "POST /v1.0/invoke/"+url.QueryEscape(address)+"/method/x", "hi")
	h.want(418, "GET /base/teapot", "GET /v1.0/invoke/out/method/teapot", "")
	if head := h.want(302, "", "GET /v1.0/invoke/out/method/away", ""); head.Get("Location") != "http://other.example/" {
		t.Errorf("%v", head)
	}
	h.want(200, "GET /x", "GET /v1.0/invoke/callee/method/x", "")
	h.want(500, "failed to invoke, id: nobody, err: ", "GET /v1.0/invoke/nobody/method/x", "")
	h.want(413, "Q0603", "POST /v1.0/invoke/out/method/x", strings.Repeat("x", 4001))
	h.want(404, "ERR_DIRECT_INVOKE", "GET /v1.0/invoke/a/b/method/x", "")
	status, body, _ := h.ask("GET /v1.0/invoke/http://me:hunter2@127.0.0.1:1/method/x", "")
	if status != 500 || !strings.Contains(body, "ERR_DIRECT_INVOKE") || strings.Contains(strings.SplitN(body, "err: ", 2)[1], "hunter2") {
		t.Errorf("%d %s", status, body)
	}
}

func TestAnEndpointOutsideIsInvokedOverGRPC(t *testing.T) {
	h := open(t)
	h.outside()
	c := h.grpc()
	got, err := c.InvokeService(c.as("shop"), &rtv1.InvokeServiceRequest{Id: "out", Message: &commonv1.InvokeRequest{Method: "a?q=1", Data: &anypb.Any{Value: []byte("hi")},
		HttpExtension: &commonv1.HTTPExtension{Verb: commonv1.HTTPExtension_PUT}}})
	if err != nil || string(got.GetData().GetValue()) != "PUT /base/a?q=1 hi" {
		t.Errorf("%v %v", got, err)
	}
	_, err = c.InvokeService(c.as("shop"), &rtv1.InvokeServiceRequest{Id: "http://127.0.0.1:1", Message: &commonv1.InvokeRequest{Method: "a"}})
	c.fails(err, codes.Internal, "", "failed to invoke, id: http://127.0.0.1:1, err: ")
}

func TestMetadataTellsWhatIsKnownOfTheApplication(t *testing.T) {
	h := open(t)
	h.with(loaded("ps", "pubsub.redis", component.PubSub{Topics: "ps/"}))
	h.opt.Subscriptions = func(*http.Request) []quipu.TopicTrigger {
		return []quipu.TopicTrigger{{Name: "ps/orders", PubSub: "ps", DeadLetter: "ps/dead", Path: "/o"}, {Name: "in", Binding: "in", Path: "/in"}}
	}
	h.opt.About = func(*http.Request) About {
		return About{HTTPEndpoints: []string{"out"}, Resiliencies: []string{"mine"}, Features: []string{"F"},
			App: AppConnection{Port: 80, Protocol: "http", ChannelAddress: "127.0.0.1", MaxConcurrency: 3, Health: &AppHealth{Path: "/h", Interval: "5s", Timeout: "1s", Threshold: 3}}}
	}
	_, body, _ := h.ask("GET /v1.0/metadata", "")
	var m map[string]any
	if err := json.Unmarshal([]byte(body), &m); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"httpEndpoints": `[{"name":"out"}]`, "resiliencies": `[{"name":"mine"}]`, "enabledFeatures": `["F"]`,
		"subscriptions":           `[{"deadLetterTopic":"dead","pubsubname":"ps","rules":[{"path":"/o"}],"topic":"orders","type":"PROGRAMMATIC"}]`,
		"actorRuntime":            `{"hostReady":false,"runtimeStatus":"DISABLED"}`,
		"appConnectionProperties": `{"channelAddress":"127.0.0.1","health":{"healthCheckPath":"/h","healthProbeInterval":"5s","healthProbeTimeout":"1s","healthThreshold":3},"maxConcurrency":3,"port":80,"protocol":"http"}`,
	} {
		if got, err := json.Marshal(m[name]); err != nil || string(got) != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	got, err := h.grpc().GetMetadata(t.Context(), &rtv1.GetMetadataRequest{})
	if err != nil || got.GetHttpEndpoints()[0].GetName() != "out" || got.GetResiliencies()[0].GetName() != "mine" || got.GetEnabledFeatures()[0] != "F" ||
		got.GetAppConnectionProperties().GetPort() != 80 || got.GetAppConnectionProperties().GetHealth().GetHealthThreshold() != 3 || len(got.GetSubscriptions()) != 1 {
		t.Errorf("%v %v", got, err)
	}
}

func TestOutboundHealthWaitsForComponents(t *testing.T) {
	h, ready := open(t), false
	h.opt.Ready = func(*http.Request) bool { return ready }
	h.want(204, "", "GET /v1.0/healthz", "")
	h.want(500, "ERR_OUTBOUND_HEALTH_NOT_READY", "GET /v1.0/healthz/outbound", "")
	ready = true
	h.want(204, "", "GET /v1.0/healthz/outbound", "")
}

func TestAnApplicationMayEndItselfWhereItIsLetTo(t *testing.T) {
	h := open(t)
	var ends []bool
	h.opt.Shutdown = func(_ *http.Request, force bool) { ends = append(ends, force) }
	h.want(204, "", "POST /v1.0/shutdown", "")
	h.want(204, "", "POST /v1.0/shutdown", "", "dapr-force-shutdown: true")
	h.want(405, "", "GET /v1.0/shutdown", "")
	c := h.grpc()
	if _, err := c.Shutdown(c.as("shop"), &rtv1.ShutdownRequest{}); err != nil {
		t.Error(err)
	}
	if len(ends) != 3 || ends[0] || !ends[1] || ends[2] {
		t.Errorf("%v", ends)
	}
}

func TestPartsOfTheAPIThatAreNotAdmittedLookAsIfTheyDidNotExist(t *testing.T) {
	h := open(t)
	var asked []string
	h.opt.Admit = func(_ *http.Request, version, path string) bool {
		asked = append(asked, version+" "+path)
		return path == "state/statestore/k" || strings.HasSuffix(path, "/GetState") || strings.HasPrefix(path, "/own.")
	}
	h.want(204, "", "GET "+store+"/k", "")
	h.want(404, "ERR_DIRECT_INVOKE", "POST "+store+"/bulk", `{}`)
	h.want(404, "failed getting app id", "GET /v1.0/invoke/callee/method/x", "")
	h.want(404, "ERR_DIRECT_INVOKE", "GET /any/path", "", "dapr-app-id: callee")
	h.want(404, "ERR_DIRECT_INVOKE", "POST /v1.0-alpha1/lock/x", "{}")
	h.want(204, "", "GET /v1.0/healthz", "")
	if got, want := strings.Join(asked, ", "), "v1.0 state/statestore/k, v1.0 state/statestore/bulk, v1.0 invoke/callee/method/x, v1.0 invoke, v1.0-alpha1 lock/x"; got != want {
		t.Errorf("asked for %s\nwant %s", got, want)
	}
	c := h.grpc()
	if _, err := c.GetState(t.Context(), &rtv1.GetStateRequest{StoreName: "statestore", Key: "k"}); err != nil {
		t.Error(err)
	}
	_, err := c.SaveState(t.Context(), &rtv1.SaveStateRequest{StoreName: "statestore", States: []*commonv1.StateItem{item("k", "1")}})
	if status.Code(err) != codes.Unimplemented {
		t.Error(err)
	}
	s, err := c.SubscribeTopicEventsAlpha1(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); status.Code(err) != codes.Unimplemented {
		t.Error(err)
	}
}
