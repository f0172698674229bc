package resource

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/quipu-run/quipu"
)

const files = `apiVersion: quipu.dev/v1
kind: Function
metadata: {name: shop}
---
# one with everything
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: orders, namespace: default}
auth: {secretStore: vault}
scopes: [shop, 7]
spec:
  type: state.redis
  version: v2
  ignoreErrors: yes
  initTimeout: 90s
  metadata:
    - {name: text, value: "on"}
    - {name: flag, value: on}
    - {name: port, value: 6379}
    - {name: share, value: 1.50}
    - {name: big, value: 12345678901}
    - {name: day, value: 2026-01-02}
    - {name: empty, value: ""}
    - name: json
      value: {b: [1, no, "<x>"], 1: 2026-01-02}
    - name: lines
      value: |
        one
        two
    - {name: bytes, value: !!binary aGVsbG8=}
    - {name: password, value: ignored, secretKeyRef: {name: redis}}
    - {name: user, secretKeyRef: {name: redis, key: user}}
    - {name: host, envRef: HOST}
    - {name: both, value: here, envRef: HOST}
    - {name: nothing, value: ~}
---
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: pubsub}
spec: {type: pubsub.kafka, initTimeout: soon}
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: s}
spec: {topic: t}
---
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: c}
spec: {api: {denied: [{name: state, version: v1, protocol: http}]}}
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: r}
spec: {policies: {timeouts: {fast: 1s}}}
---
apiVersion: dapr.io/v1alpha1
kind: HTTPEndpoint
metadata: {name: bank}
auth: {secretStore: vault}
spec:
  baseUrl: https://bank.example/api
  headers:
    - {name: Accept-Language, value: en}
    - {name: Authorization, secretKeyRef: {name: bank, key: token}}
  clientTLS:
    rootCA: {value: PEM}
    certificate: {secretKeyRef: {name: bank, key: cert}}
    privateKey: {envRef: BANK_KEY}
    renegotiation: OnceAsClient
---
apiVersion: dapr.io/v1alpha1
kind: MCPServer
metadata: {name: m}
---
apiVersion: dapr.io/v9
kind: Component
metadata: {name: future}
`

func TestWhatFilesSayIsRead(t *testing.T) {
	set, err := ReadFS(fstest.MapFS{"all.yaml": {Data: []byte(files)}, "resources/b.YML": {Data: []byte("apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: b}\nspec: {type: bindings.cron}")},
		"notes.txt": {Data: []byte("apiVersion: dapr.io/v1")}, "helm.yaml": {Data: []byte("{{ no: yaml")}, "empty.yaml": {}, "lock.yaml": {Data: make([]byte, 2*fileBytesMax)}, "json.yaml": {Data: []byte(`{"apiVersion":"dapr.io/v1alpha1","kind":"Component","metadata":{"name":"j"},"spec":{"type":"lock.redis","metadata":[{"name":"m","value":{"a":{"b":1}}}]}}`)}, "list.yaml": {Data: []byte("[dapr.io/v1]")},
		"deep/er/c.yaml": {Data: []byte("apiVersion: dapr.io/v1alpha1\nkind: Component")}}, Folders...)
	if err != nil {
		t.Fatal(err)
	}
	if len(set.Components) != 4 || len(set.Subscriptions) != 1 || len(set.Configurations) != 1 || len(set.Resiliencies) != 1 || len(set.HTTPEndpoints) != 1 {
		t.Fatalf("%+v", set)
	}
	c := set.Components[0]
	if c.File != "all.yaml" || c.Line != 6 || c.Name != "orders" || !slices.Equal(c.Scopes, []string{"shop", "7"}) || c.Type != "state.redis" || c.Version != "v2" || !c.IgnoreErrors ||
		c.InitTimeout != "90s" || c.SecretStore != "vault" || !c.For("shop") || c.For("stats") {
		t.Errorf("%+v", c)
	}
	var lines []string
	for _, v := range c.Metadata {
		lines = append(lines, fmt.Sprintf("%s %q %q %q", v.Name, v.Value, v.SecretKey, v.Env))
	}
	want := []string{`text "on" {"" ""} ""`, `flag "true" {"" ""} ""`, `port "6379" {"" ""} ""`, `share "1.5" {"" ""} ""`, `big "12345678901" {"" ""} ""`,
		`day "2026-01-02" {"" ""} ""`, `empty "" {"" ""} ""`, `json "{\"1\":\"2026-01-02\",\"b\":[1,false,\"<x>\"]}" {"" ""} ""`, `lines "one\ntwo\n" {"" ""} ""`, `bytes "hello" {"" ""} ""`,
		`password "" {"redis" "redis"} ""`, `user "" {"redis" "user"} ""`, `host "" {"" ""} "HOST"`, `both "here" {"" ""} ""`, `nothing "" {"" ""} ""`}
	if !slices.Equal(lines, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	if c := set.Components[1]; c.Version != "v1" || c.InitTimeout != "" || !c.For("anybody") {
		t.Errorf("%+v", c)
	}
	if c := set.Components[2]; c.Name != "j" || c.Metadata[0].Value != `{"a":{"b":1}}` {
		t.Errorf("%+v", c)
	}
	if s := set.Subscriptions[0]; s.APIVersion != "dapr.io/v2alpha1" || s.Spec.Content == nil {
		t.Errorf("%+v", s)
	}
	if set.Configurations[0].Spec.API.Denied[0].Name != "state" || set.Resiliencies[0].Spec.Policies.Timeouts["fast"] != "1s" {
		t.Errorf("%+v %+v", set.Configurations[0], set.Resiliencies[0])
	}
	e := set.HTTPEndpoints[0]
	if e.BaseURL != "https://bank.example/api" || e.SecretStore != "vault" || len(e.Headers) != 2 || e.Headers[1].SecretKey != (SecretRef{"bank", "token"}) ||
		e.TLS != (EndpointTLS{Value{Name: "rootCA", Value: "PEM"}, Value{Name: "certificate", SecretKey: SecretRef{"bank", "cert"}}, Value{Name: "privateKey", Env: "BANK_KEY"}, RenegotiateOnce}) {
		t.Errorf("%+v", e)
	}
	wantWarnings := `all.yaml:38: Component "pubsub" has the initTimeout "soon", which is no duration like 30s: 5s is taken
all.yaml:73: MCPServer "m" is not used
all.yaml:77: Component "future" is of apiVersion "dapr.io/v9" and is not used: write dapr.io/v1alpha1`
	if strings.Join(set.Warnings, "\n") != wantWarnings {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(set.Warnings, "\n"), wantWarnings)
	}
}

func TestAWrongResourceIsToldByItsPlaceAndWhatToWrite(t *testing.T) {
	const component = "# comment\napiVersion: dapr.io/v1alpha1\nkind: Component\n"
	const endpoint = "apiVersion: dapr.io/v1alpha1\nkind: HTTPEndpoint\nmetadata: {name: e}\nspec: "
	for text, want := range map[string]string{
		component + "spec: {type: state.redis}":                                                                            "x.yaml:2: Component has no name: write metadata: {name: NAME}",
		component + "metadata: {name: a/b}\nspec: {type: state.redis}":                                                     `x.yaml:2: Component has the name "a/b": write one`,
		component + "metadata: {name: ..}\nspec: {type: state.redis}":                                                      `has the name ".."`,
		component + "metadata: {name: " + strings.Repeat("n", 254) + "}":                                                   "write one of up to 253 bytes",
		component + "metadata: {name: a}":                                                                                  `x.yaml:2: Component "a" has the type "": write one like state.redis`,
		component + "metadata: {name: a}\nspec: {type: redis}":                                                             `has the type "redis"`,
		component + "metadata: {name: a}\nspec: {type: state.redis, ignoreErrors: maybe}":                                  `x.yaml:2: Component "a": line 5: cannot unmarshal`,
		component + "metadata: {name: a}\nscopes: all\nspec: {type: a.b}":                                                  "line 5: cannot unmarshal",
		component + "metadata: {name: a}\nspec:\n  type: a.b\n  metadata: s3cret":                                          `x.yaml:7: Component "a": spec.metadata must be a list`,
		component + "metadata: {name: a}\nspec:\n  type: a.b\n  metadata:\n  - s3cret":                                     `x.yaml:8: Component "a": spec.metadata must be a mapping`,
		component + "metadata: {name: a}\nspec:\n  type: a.b\n  metadata:\n  - value: s3cret":                              `x.yaml:8: Component "a": spec.metadata has an item without a name`,
		component + "metadata: {name: a}\nspec: {type: a.b, metadata: [{name: [s3cret]}]}":                                 `x.yaml:5: Component "a": an item of spec.metadata has a field of the wrong type`,
		component + "metadata: {name: a}\nspec: {type: a.b, metadata: [{name: x, value: .nan}]}":                           `x.yaml:5: Component "a": the value of x`,
		component + "metadata: {name: [":                                                                                   "x.yaml: line 4",
		component + "metadata: {name: a}\nspec: {type: a.b}\n---\n" + component + "metadata: {name: a}\nspec: {type: c.d}": `x.yaml:8: Component "a" is also in x.yaml:2: rename one`,
		endpoint + "{}":                                                                     "x.yaml:1: HTTPEndpoint \"e\" has no baseUrl that can be used",
		endpoint + "{baseUrl: 'ftp://h'}":                                                   "has no baseUrl",
		endpoint + "{baseUrl: 'http://u:s3cret@h'}":                                         "has no baseUrl",
		endpoint + "{baseUrl: 'http://h', headers: {a: b}}":                                 "spec.headers must be a list",
		endpoint + "{baseUrl: 'http://h', clientTLS: {rootCA: s3cret}}":                     "spec.clientTLS.rootCA must be a mapping",
		endpoint + "{baseUrl: 'http://h', clientTLS: {privateKey: {value: s3cret}}}":        "only one of clientTLS.certificate and clientTLS.privateKey",
		endpoint + "{baseUrl: 'http://h', clientTLS: {renegotiation: Always}}":              "write Never, OnceAsClient or FreelyAsClient",
		endpoint + "{baseUrl: 'http://h'}\n---\n" + endpoint + "{baseUrl: 'http://h'}":      `x.yaml:6: HTTPEndpoint "e" is also in x.yaml:1`,
		endpoint + "{baseUrl: 'http://h', clientTLS: {privateKey: {value: .nan}}}":          "nor can it be JSON",
		"apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec: [1]": `x.yaml:1: Configuration "c": line 4: cannot unmarshal`,
		"apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: c}\nspec: [1]":    `x.yaml:1: Resiliency "c": line 4: cannot unmarshal`,
		"# dapr.io/" + strings.Repeat("#", fileBytesMax):                                    "x.yaml has more than 1048576 bytes",
		"# dapr.io/\n" + strings.Repeat("a: 1\n---\n", documentsMax+1):                      "there are more than 1000 documents",
	} {
		for how, read := range map[string]func() (Set, error){
			"folder": func() (Set, error) { return ReadFS(fstest.MapFS{"x.yaml": {Data: []byte(text)}}, Folders...) },
			"texts":  func() (Set, error) { return ReadFiles(map[string]string{"x.yaml": text}) },
		} {
			_, err := read()
			if quipu.CodeOf(err) != quipu.CodeManifest || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%s: %.120q: %v, want %s", how, text, err, want)
			}
		}
	}
	bomb := component + "metadata: {name: a}\nlong: &long " + strings.Repeat("x", 1<<19) + "\nspec: {type: a.b, metadata: [" + strings.Repeat("{name: x, value: *long},", 17) + "]}"
	if _, err := ReadFiles(map[string]string{"x.yaml": bomb}); err == nil || !strings.Contains(err.Error(), "more than 8388608 bytes") {
		t.Error(err)
	}
	many := map[string]string{}
	for i := range filesMax + 1 {
		many[fmt.Sprint(i, ".yaml")] = ""
	}
	if _, err := ReadFiles(many); quipu.CodeOf(err) != quipu.CodeManifest {
		t.Error(err)
	}
}

func TestAppsMayHaveDifferentComponentsOfOneName(t *testing.T) {
	one := func(scopes string) string {
		return "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: store}\nspec: {type: state.redis}\nscopes: " + scopes
	}
	set, err := ReadFiles(map[string]string{"a.yaml": one("[a]"), "b.yaml": one("[b, c]")})
	if err != nil || len(set.Components) != 2 {
		t.Error(err)
	}
	for app, want := range map[string]string{"a": "a.yaml", "c": "b.yaml"} {
		if got := set.For(app).Components; len(got) != 1 || got[0].File != want {
			t.Errorf("%s has %+v", app, got)
		}
	}
	if got := set.For("d"); got.Components != nil {
		t.Errorf("%+v", got)
	}
	for _, other := range []string{"[]", "[c, b]"} {
		_, err := ReadFiles(map[string]string{"a.yaml": one(other), "b.yaml": one("[b]")})
		if err == nil || !strings.Contains(err.Error(), `b.yaml:1: Component "store" is also in a.yaml:1`) {
			t.Errorf("%s: %v", other, err)
		}
	}
}

func TestAFolderThatCannotBeReadIsAnError(t *testing.T) {
	if set, err := ReadFS(fstest.MapFS{}, "missing"); err != nil || len(set.Components) != 0 {
		t.Error(err)
	}
	if _, err := ReadFS(brokenFS{}, "."); err == nil {
		t.Error("no error")
	}
}

type brokenFS struct{}

func (brokenFS) Open(string) (fs.File, error) { return nil, fs.ErrPermission }

// What others write never brings the node down, and what is accepted can be used.
func FuzzFilesOfOthers(f *testing.F) {
	f.Add(files)
	f.Add("apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: &a {name: a}\nspec: {type: a.b, metadata: [{name: x, value: &v [*v]}, {name: y, value: *a}]}")
	f.Add("apiVersion: dapr.io/v1alpha1\nkind: HTTPEndpoint\nmetadata: {name: a}\nspec: {baseUrl: 'http://h', clientTLS: ~, headers: ~}")
	f.Add("apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: a}\nspec: {type: a.b, metadata: [{name: x, value: {? [1] : 2, ~: 3, 1.5: yes}}]}")
	f.Fuzz(func(t *testing.T, text string) {
		set, err := ReadFiles(map[string]string{"x.yaml": text})
		if err != nil {
			if quipu.CodeOf(err) != quipu.CodeManifest {
				t.Fatal(err)
			}
			return
		}
		for _, c := range set.Components {
			if c.Name == "" || c.Line < 1 || c.Version == "" || !strings.Contains(c.Type, ".") {
				t.Fatalf("%+v", c)
			}
			r := Resolver{App: "a", Namespace: "n", PodName: "p", Env: func(string) (string, bool) { return "", true },
				Secret: noSecret}
			if _, err := c.Resolve(t.Context(), r); err != nil && quipu.CodeOf(err) != quipu.CodeManifest {
				t.Fatal(err)
			}
		}
	})
}
