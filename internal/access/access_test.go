package access

import (
	"strings"
	"testing"

	yaml "go.yaml.in/yaml/v3"

	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/quipu-run/quipu/internal/resource"
)

func read(t testing.TB, text string) resource.ConfigurationSpec {
	t.Helper()
	var c resource.Configuration
	if err := yaml.Unmarshal([]byte(text), &c.Spec); err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	return c.Spec
}

// The lists that Dapr's own tests use, but for trust domains.
const lists = `
accessControl:
  defaultAction: deny
  policies:
  - {appId: app1, defaultAction: allow, namespace: ns1, operations: [{name: /op1, httpVerb: [POST, GET], action: allow}, {name: /op2, httpVerb: ["*"], action: deny}]}
  - {appId: app2, defaultAction: deny, namespace: ns2, operations: [{name: /op3/a/*, httpVerb: [PUT, GET], action: allow}, {name: op4, httpVerb: [post], action: Allow}]}
  - {appId: app3, namespace: ns1, operations: [{name: /op5, httpVerb: [POST], action: allow}]}
  - appId: app4
    defaultAction: deny
    namespace: ns2
    operations: [{name: /op6, action: allow}, {name: /op7/a/b/*, action: allow}, {name: /op7/a/b/c/f, action: allow}, {name: /op7/a/b*, action: allow}, {name: /op7/c/**, action: allow}]
  - {appId: app1, defaultAction: allow, namespace: ns4, operations: [{name: /op6, httpVerb: ["*"], action: deny}]}
  - {appId: app5, defaultAction: allow, operations: [{name: /op1, httpVerb: [GET], action: deny}]}
`

func TestWhoMayInvokeWhat(t *testing.T) {
	const http, grpc = false, true
	for _, c := range []struct {
		why       string
		protocol  bool
		by        App
		operation string
		verb      string
		want      bool
	}{
		{"an app without a policy", http, App{"appX", "ns1"}, "op1", "POST", false},
		{"nobody known", http, App{}, "op1", "POST", false},
		{"an app of another namespace", http, App{"app1", "abcd"}, "op1", "POST", false},
		{"its default, for an operation of no policy", http, App{"app1", "ns1"}, "opX", "POST", true},
		{"a denied operation", http, App{"app1", "ns1"}, "op2", "PUT", false},
		{"in other letters, which are the same of HTTP", http, App{"app1", "ns1"}, "Op2", "POST", false},
		{"the same app in another namespace", http, App{"app1", "ns4"}, "op2", "PUT", true},
		{"denied there", http, App{"app1", "ns4"}, "op6", "PUT", false},
		{"another verb has the caller's default", http, App{"app2", "ns2"}, "op4", "PUT", false},
		{"another verb, and the caller has no default", http, App{"app3", "ns1"}, "op5", "PUT", false},
		{"a verb, however it is written", http, App{"app2", "ns2"}, "op4", "POST", true},
		{"with a slash", http, App{"app2", "ns2"}, "/op4", "POST", true},
		{"no verb", http, App{"app2", "ns2"}, "op4", "", false},
		{"no verb, and the caller may do anything", http, App{"app1", "ns1"}, "op2", "", true},
		{"* is none", http, App{"app2", "ns2"}, "/op3/a", "PUT", true},
		{"* is one", http, App{"app2", "ns2"}, "/op3/a/b", "PUT", true},
		{"* is not two", http, App{"app2", "ns2"}, "/op3/a/b/c", "PUT", false},
		{"elsewhere", http, App{"app2", "ns2"}, "/op3/b/b", "PUT", false},
		{"below an operation", http, App{"app2", "ns2"}, "/op4/more", "POST", true},
		{"an operation without verbs says nothing of HTTP", http, App{"app4", "ns2"}, "/op6", "GET", false},
		{"a policy for all namespaces", http, App{"app5", "any"}, "/op1", "GET", false},
		{"and its default", http, App{"app5", "any"}, "/op1", "PUT", true},
		{"letters of gRPC", grpc, App{"app2", "ns2"}, "/OP4", "", false},
		{"verbs are nothing to gRPC", grpc, App{"app2", "ns2"}, "op4", "", true},
		{"an operation without verbs", grpc, App{"app4", "ns2"}, "op6", "", true},
		{"* is one", grpc, App{"app4", "ns2"}, "op7/a/b/c", "", true},
		{"* is not two", grpc, App{"app4", "ns2"}, "op7/a/b/c/d", "", false},
		{"the one that is listed", grpc, App{"app4", "ns2"}, "op7/a/b/c/f", "", true},
		{"* in a segment", grpc, App{"app4", "ns2"}, "op7/a/bc", "", true},
		{"** is many", grpc, App{"app4", "ns2"}, "op7/c/d/e", "", true},
		{"** is none", grpc, App{"app4", "ns2"}, "op7/c", "", true},
	} {
		got, why := NewList(read(t, lists).AccessControl, c.protocol).Allowed(c.by, c.operation, c.verb)
		if got != c.want || (why == "") != got {
			t.Errorf("%s: %t %q", c.why, got, why)
		}
	}
}

func TestAListSaysWhomItDeniedWhat(t *testing.T) {
	_, why := NewList(read(t, lists).AccessControl, false).Allowed(App{"app2", "ns2"}, "op4", "PUT")
	if why != "access control policy has denied access to id: app2 operation: op4 verb: PUT" {
		t.Error(why)
	}
}

func TestTheDefaultOfAListDependsOnWhatItHas(t *testing.T) {
	for text, want := range map[string]bool{
		"{}":                                     true,
		"{accessControl: {trustDomain: public}}": true,
		"{accessControl: {defaultAction: allow}}":     true,
		"{accessControl: {defaultAction: deny}}":      false,
		"{accessControl: {policies: [{appId: app}]}}": false, // the safe one
	} {
		if got, _ := NewList(read(t, text).AccessControl, false).Allowed(App{ID: "other"}, "op", "GET"); got != want {
			t.Errorf("%s: %t", text, got)
		}
	}
}

func TestTheFirstOfOperationsThatBeginAlikeIsFollowed(t *testing.T) {
	var n node
	for _, name := range []string{"/a/b*", "/a/bc/d", "/a/bc", "/x/**/z", "/**"} {
		n.put(name, &rule{verbs: []string{name}})
	}
	n.put("/a/b*", &rule{}) // the second of a name
	for operation, want := range map[string]string{
		"/a/bc": "/a/b*", "/a/bc/d": "/a/b*", "/a/c": "", "/x/1/z": "/x/**/z", "/x/1/2/z": "", "/other/1": "/**", "/": "/**",
	} {
		got := ""
		if r := n.find(operation); r != nil {
			got = r.verbs[0]
		}
		if got != want {
			t.Errorf("%s: %q, not %q", operation, got, want)
		}
	}
}

func TestAStarThatSomebodyAsksForIsNoWayBelowOne(t *testing.T) {
	var n node
	n.put("/*", &rule{})
	if n.find("/*") == nil || n.find("/a") == nil || n.find("/*/a") != nil {
		t.Error("* is one segment, whatever is asked for")
	}
}

func TestStarsInASegmentAreAnyCharacters(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"A*", "ABC", true}, {"A*", "A", true}, {"*C", "ABC", true}, {"*a", "ABC.a", true}, {"a*d", "abcd", true}, {"a*d", "abc", false},
		{"AB*.a", "ABC.a", true}, {"a*b*c", "axbxbxc", true}, {"a*b*c", "axc", false}, {"abc", "abcd", false}, {"", "", true}, {"a**", "a", true},
		{strings.Repeat("*a", 50) + "b", strings.Repeat("a", 10_000), false}, // in no time, too
	} {
		if wild(c.pattern, c.text) != c.want {
			t.Errorf("%.20q of %.20q: %t", c.text, c.pattern, !c.want)
		}
	}
}

func TestAMethodIsMadeWhatIsInvoked(t *testing.T) {
	for method, want := range map[string]string{
		"admin/../public": "public", "../../etc/passwd": "etc/passwd", "/a//b/./c/": "/a/b/c", "mymethod": "mymethod", "..": "", "": "", "a%2fb": "a%2fb",
	} {
		if got, err := Normalize(method); err != nil || got != want {
			t.Errorf("%q became %q, %v", method, got, err)
		}
	}
	for _, method := range []string{"a#b", "a?b", "a\x00b", "a\nb", "a\x7fb"} {
		if _, err := Normalize(method); err == nil {
			t.Errorf("%q was taken", method)
		}
	}
}

func TestOnlyAllowedPartsOfTheAPIAreThere(t *testing.T) {
	allowed := NewAPI(read(t, "{api: {allowed: [{name: state, version: v1.0, protocol: http}, {name: invoke, version: v1, protocol: HTTP}, {name: publish, version: v1, protocol: grpc}, {name: jobs, version: v1.0-alpha1, protocol: grpc}]}}").API)
	denied := NewAPI(read(t, "{api: {denied: [{name: state, version: v1.0, protocol: http}, {name: lock, version: v1.0-alpha1, protocol: http}, {name: secrets, version: v1, protocol: grpc}]}}").API)
	both := NewAPI(read(t, "{api: {allowed: [{name: state, version: v1, protocol: http}], denied: [{name: state, version: v1, protocol: http}]}}").API)
	nothing := NewAPI(read(t, "{api: {allowed: [{name: nothing, version: v1, protocol: grpc}]}}").API)
	for _, c := range []struct {
		api           *API
		version, path string
		want          bool
	}{
		{nil, "v1.0", "state/a", true},
		{allowed, "v1.0", "state/a/b", true}, {allowed, "v1.0", "/state/a", true}, {allowed, "v1.0-alpha1", "state/a/query", false},
		{allowed, "v1.0", "invoke/a/method/b", true}, {allowed, "v1.0", "publish/a/b", false}, {allowed, "v1.0", "statement", false},
		{allowed, "v1.0", "healthz", true}, {allowed, "v1.0", "healthz/outbound", true}, {allowed, "v1.0", "metadata", false},
		{denied, "v1.0", "state/a", false}, {denied, "v1.0-alpha1", "state/a/query", true}, {denied, "v1.0-alpha1", "lock/a", false},
		{denied, "v1.0-alpha1", "unlock/a", true}, {denied, "v1.0", "secrets/a/b", true},
		{both, "v1.0", "state/a", false}, {both, "v1.0", "publish/a", false},
		{nothing, "v1.0", "state/a", true},
	} {
		if c.api.HTTP(c.version, c.path) != c.want {
			t.Errorf("%s/%s: %t", c.version, c.path, !c.want)
		}
	}
	for _, c := range []struct {
		api    *API
		method string
		want   bool
	}{
		{nil, runtimePrefix + "GetState", true},
		{allowed, runtimePrefix + "PublishEvent", true}, {allowed, runtimePrefix + "BulkPublishEventAlpha1", false},
		{allowed, runtimePrefix + "GetJobAlpha1", true}, {allowed, runtimePrefix + "GetJob", false}, {allowed, runtimePrefix + "GetState", false},
		{allowed, runtimePrefix + "Unheard", false}, {allowed, "/helloworld.Greeter/SayHello", true},
		{denied, runtimePrefix + "GetSecret", false}, {denied, runtimePrefix + "GetState", true}, {denied, runtimePrefix + "Unheard", true},
		{nothing, runtimePrefix + "GetState", false},
	} {
		if c.api.GRPC(c.method) != c.want {
			t.Errorf("%s: %t", c.method, !c.want)
		}
	}
}

func TestEveryMethodOfTheAPIIsOfAPart(t *testing.T) {
	var all []string
	for _, m := range runtimev1.Dapr_ServiceDesc.Methods {
		all = append(all, m.MethodName)
	}
	for _, s := range runtimev1.Dapr_ServiceDesc.Streams {
		all = append(all, s.StreamName)
	}
	for _, name := range all {
		if methods[name] == (part{}) {
			t.Errorf("%s is of no part", name)
		}
	}
	if len(all) != len(methods) {
		t.Errorf("%d methods are of parts, and there are %d", len(methods), len(all))
	}
}

func TestWhichSecretsMayBeRead(t *testing.T) {
	s := NewSecrets(read(t, `{secrets: {scopes: [
		{storeName: allowed, defaultAccess: deny, allowedSecrets: [b, a]}, {storeName: shut, defaultAccess: Deny}, {storeName: denied, deniedSecrets: [b, a]},
		{storeName: both, allowedSecrets: [a], deniedSecrets: [a]}, {storeName: free, defaultAccess: allow}]}}`).Secrets)
	for _, c := range []struct {
		scopes      *Secrets
		store, name string
		want        bool
	}{
		{nil, "any", "a", true}, {s, "other", "a", true}, {s, "allowed", "a", true}, {s, "allowed", "b", true}, {s, "allowed", "c", false},
		{s, "shut", "a", false}, {s, "denied", "a", false}, {s, "denied", "c", true}, {s, "free", "a", true},
		{s, "both", "a", true}, {s, "both", "c", false}, // what is allowed by name comes first
	} {
		if c.scopes.Allowed(c.store, c.name) != c.want {
			t.Errorf("%s of %s: %t", c.name, c.store, !c.want)
		}
	}
}

func TestWhichComponentsThereMayBe(t *testing.T) {
	c := NewComponents(read(t, "{components: {deny: [state.foo, state.bar/v2]}}").Components.Deny)
	for name, want := range map[string]bool{"state.foo/v1": false, "state.foo/v2": false, "state.bar/v1": true, "state.bar/v2": false, "state.baz/v1": true} {
		kind, version, _ := strings.Cut(name, "/")
		if c.Allowed(kind, version) != want || !(*Components)(nil).Allowed(kind, version) {
			t.Errorf("%s: %t", name, !want)
		}
	}
}

func BenchmarkNoList(b *testing.B) {
	var l *List
	for b.Loop() {
		if ok, _ := l.Allowed(App{"app2", "ns2"}, "op4", "POST"); !ok {
			b.Fatal("denied")
		}
	}
}

func BenchmarkList(b *testing.B) {
	l := NewList(read(b, lists).AccessControl, false)
	b.ReportAllocs()
	for b.Loop() {
		if ok, _ := l.Allowed(App{"app2", "ns2"}, "op3/a/b", "PUT"); !ok {
			b.Fatal("denied")
		}
	}
}
