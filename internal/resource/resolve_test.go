package resource

import (
	"context"
	"errors"
	"maps"
	"regexp"
	"strings"
	"testing"

	"github.com/quipu-run/quipu"
)

func noSecret(context.Context, string, string, string) (string, bool, error) { return "", false, nil }

// secrets are those of a test: by store, name and key.
type secrets map[string]string

func (s secrets) read(_ context.Context, store, name, key string) (string, bool, error) {
	value, ok := s[store+"/"+name+"/"+key]
	if value == "broken" {
		return "", false, errors.New("vault is sealed")
	}
	return value, ok, nil
}

func envOf(all map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { value, ok := all[name]; return value, ok }
}

func testResolver() Resolver {
	return Resolver{App: "shop", Namespace: "dev", Secret: secrets{"vault/db/password": "p{appID}", "secretstore/db/db": "default", "vault/bad/bad": "broken"}.read,
		Env: envOf(map[string]string{"HOST": "h-{appID}", "EMPTY": "", "DAPR_X": "x", "APP_API_TOKEN": "x", "QUIPU_TOKEN": "x"})}
}

func TestReferencesAndTemplatesAreResolved(t *testing.T) {
	c := Component{Resource: Resource{File: "c.yaml", Line: 3, Name: "store"}, Type: "state.redis", Version: "v1", SecretStore: "vault", Metadata: []Value{
		{Name: "plain", Value: "{} {appID}/{namespace}/{unknown}"}, {Name: "password", SecretKey: SecretRef{"db", "password"}},
		{Name: "host", Env: "HOST"}, {Name: "empty", Env: "EMPTY"}, {Name: "id", Value: "{uuid}+{uuid}"}, {Name: "twice", Value: "1"}, {Name: "twice", Value: "2"}}}
	s, err := c.Resolve(t.Context(), testResolver())
	if err != nil || s.Name != "store" || s.Type != "state.redis" || s.Version != "v1" {
		t.Fatal(err, s)
	}
	ids := regexp.MustCompile(`^([-0-9a-f]{36})\+([-0-9a-f]{36})$`).FindStringSubmatch(s.Metadata["id"])
	if ids == nil || ids[1] == ids[2] {
		t.Errorf("each {uuid} is another: %q", s.Metadata["id"])
	}
	delete(s.Metadata, "id")
	want := map[string]string{"plain": "{} shop/dev.shop/{unknown}", "password": "p{appID}", "host": "h-shop", "empty": "", "twice": "2"}
	if !maps.Equal(s.Metadata, want) {
		t.Errorf("got %q, want %q", s.Metadata, want)
	}

	pod := testResolver()
	pod.PodName = "shop-0"
	c.Metadata = []Value{{Name: "a", Value: "{podName}"}, {Name: "b", SecretKey: SecretRef{"db", "db"}}}
	for _, store := range []string{"", "kubernetes", "secretstore"} {
		c.SecretStore = store
		if s, err = c.Resolve(t.Context(), pod); err != nil || s.Metadata["a"] != "shop-0" || s.Metadata["b"] != "default" {
			t.Error(store, err, s.Metadata)
		}
	}
}

func TestAReferenceToNothingIsToldWithoutItsValue(t *testing.T) {
	for want, v := range map[string]Value{
		`c.yaml:3: Component "store": x refers to key "user" of secret "db", which store "vault" does not have`: {Name: "x", SecretKey: SecretRef{"db", "user"}},
		`x refers to the environment variable "GONE", which is not set`:                                         {Name: "x", Env: "GONE"},
		`x refers to the environment variable "DAPR_X", which resources may not read`:                           {Name: "x", Env: "DAPR_X"},
		`variable "app_api_token", which resources may not read`:                                                {Name: "x", Env: "app_api_token"},
		`variable "QUIPU_TOKEN", which resources may not read`:                                                  {Name: "x", Env: "QUIPU_TOKEN"},
		`variable "A B", which resources may not read`:                                                          {Name: "x", Env: "A B"},
		`x has {podName}, but there is no pod`:                                                                  {Name: "x", Value: "s3cret{podName}"},
	} {
		c := Component{Resource: Resource{File: "c.yaml", Line: 3, Name: "store"}, SecretStore: "vault", Metadata: []Value{{Name: "other", Value: "s3cret"}, v}}
		_, err := c.Resolve(t.Context(), testResolver())
		if quipu.CodeOf(err) != quipu.CodeManifest || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%v, want %s", err, want)
		}
	}
	c := Component{Resource: Resource{Name: "store"}, SecretStore: "vault", Metadata: []Value{{Name: "x", SecretKey: SecretRef{"bad", "bad"}}}}
	if _, err := c.Resolve(t.Context(), testResolver()); err == nil || !strings.Contains(err.Error(), `secret "bad" in store "vault" for x of Component "store": vault is sealed`) {
		t.Error(err)
	}
	if _, err := c.Resolve(t.Context(), Resolver{}); quipu.CodeOf(err) != quipu.CodeManifest {
		t.Error("no secrets at all:", err)
	}
	c.Metadata = []Value{{Name: "x", Env: "HOST"}}
	if _, err := c.Resolve(t.Context(), Resolver{}); quipu.CodeOf(err) != quipu.CodeManifest {
		t.Error("no environment at all:", err)
	}
}

func TestAnAllowListLeavesOnlyItsNames(t *testing.T) {
	all := map[string]string{"DAPR_ENV_KEYS": "HOST PORT", "HOST": "h", "OST": "o", "PORT": "p"}
	for name, want := range map[string]bool{"HOST": true, "PORT": true, "OST": false, "HOST PORT": false, "DAPR_ENV_KEYS": false} {
		c := Component{Metadata: []Value{{Name: "x", Env: name}}}
		if _, err := c.Resolve(t.Context(), Resolver{Env: envOf(all)}); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnEndpointGetsItsHeadersAndKeys(t *testing.T) {
	e := HTTPEndpoint{Resource: Resource{File: "e.yaml", Line: 1, Name: "bank"}, BaseURL: "https://bank.example", SecretStore: "vault",
		Headers: []Value{{Name: "authorization", SecretKey: SecretRef{"db", "password"}}, {Name: "X-App", Value: "{appID}"}},
		TLS:     EndpointTLS{RootCA: Value{Name: "rootCA", Value: "PEM"}, Certificate: Value{Name: "certificate", Env: "HOST"}, PrivateKey: Value{Name: "privateKey", SecretKey: SecretRef{"db", "password"}}, Renegotiation: RenegotiateOnce}}
	got, err := e.Resolve(t.Context(), testResolver())
	if err != nil || got.Name != "bank" || got.BaseURL != e.BaseURL || got.Header.Get("Authorization") != "p{appID}" || got.Header.Get("X-App") != "{appID}" ||
		string(got.TLS.RootCA) != "PEM" || string(got.TLS.Certificate) != "h-{appID}" || string(got.TLS.PrivateKey) != "p{appID}" || got.TLS.Renegotiation != RenegotiateOnce {
		t.Errorf("%v %+v", err, got)
	}
	for _, bad := range []Value{{Name: "a b", Value: "s3cret"}, {Name: "A", Value: "s3cret\r\nB: c"}, {Name: "A", Env: "GONE"}} {
		e.Headers = []Value{bad}
		if _, err := e.Resolve(t.Context(), testResolver()); quipu.CodeOf(err) != quipu.CodeManifest || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	e.Headers, e.TLS.PrivateKey.SecretKey.Key = nil, "gone"
	if _, err := e.Resolve(t.Context(), testResolver()); quipu.CodeOf(err) != quipu.CodeManifest {
		t.Error(err)
	}
}
