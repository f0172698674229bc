package resource

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/uuid"
	"github.com/quipu-run/quipu/internal/component"
	"golang.org/x/net/http/httpguts"
)

// SecretStoreDefault is meant by a secretKeyRef if auth.secretStore names no store, or that of Kubernetes.
const SecretStoreDefault = "secretstore"

const secretStoreKubernetes = "kubernetes"

// Resolver says what references and templates mean for one app.
type Resolver struct {
	App       string // {appID}
	Namespace string // {namespace} is NAMESPACE.APP
	PodName   string // {podName}; "" refuses it
	// Env reads the environment, os.LookupEnv or what an app brought with it; nil is an empty one.
	Env func(name string) (string, bool)
	// Secret reads the value of a key of a secret, and tells whether it is there. nil has none.
	Secret func(ctx context.Context, store, name, key string) (string, bool, error)
}

// Resolve gives a component its values. CodeManifest, with the reference but never a value, if one refers to what is
// not there or may not be read; and what Secret answers.
func (c Component) Resolve(ctx context.Context, r Resolver) (component.Spec, error) {
	s := component.Spec{Name: c.Name, Type: c.Type, Version: c.Version, Metadata: make(component.Metadata, len(c.Metadata))}
	at := referrer{c.Resource, "Component", c.SecretStore}
	for _, v := range c.Metadata {
		value, err := r.value(ctx, at, v, r.fill)
		if err != nil {
			return component.Spec{}, err
		}
		s.Metadata[v.Name] = value
	}
	return s, nil
}

// Endpoint is an HTTPEndpoint with its values.
type Endpoint struct {
	Name, BaseURL string
	Header        http.Header // set on each request to it
	TLS           EndpointKeys
}

// EndpointKeys are PEM, or empty.
type EndpointKeys struct {
	RootCA, Certificate, PrivateKey []byte
	Renegotiation                   string
}

// Resolve gives an endpoint its values. Errors are those of Component.Resolve.
func (e HTTPEndpoint) Resolve(ctx context.Context, r Resolver) (Endpoint, error) {
	out := Endpoint{Name: e.Name, BaseURL: e.BaseURL, Header: make(http.Header, len(e.Headers)), TLS: EndpointKeys{Renegotiation: e.TLS.Renegotiation}}
	at := referrer{e.Resource, "HTTPEndpoint", e.SecretStore}
	for _, v := range e.Headers {
		value, err := r.value(ctx, at, v, asItIs)
		if err != nil {
			return Endpoint{}, err
		}
		if !httpguts.ValidHeaderFieldName(v.Name) || !httpguts.ValidHeaderFieldValue(value) {
			return Endpoint{}, at.fault(v, "cannot be a header: write a name of letters, digits and hyphens, and a value of one line")
		}
		out.Header.Set(v.Name, value)
	}
	for _, part := range []struct {
		from Value
		to   *[]byte
	}{{e.TLS.RootCA, &out.TLS.RootCA}, {e.TLS.Certificate, &out.TLS.Certificate}, {e.TLS.PrivateKey, &out.TLS.PrivateKey}} {
		value, err := r.value(ctx, at, part.from, asItIs)
		if err != nil {
			return Endpoint{}, err
		}
		*part.to = []byte(value)
	}
	return out, nil
}

func asItIs(_ referrer, v Value) (string, error) { return v.Value, nil }

// referrer is the resource that a value is of.
type referrer struct {
	Resource
	kind, store string
}

func (f referrer) fault(v Value, format string, args ...any) error {
	return place{f.File, f.Line}.fault("%s %q: %s %s", f.kind, f.Name, v.Name, fmt.Sprintf(format, args...))
}

// value is what v means. Secrets are taken byte for byte: what looks like a template in one is none.
func (r Resolver) value(ctx context.Context, at referrer, v Value, fill func(referrer, Value) (string, error)) (string, error) {
	switch {
	case v.SecretKey.Name != "":
		return r.secret(ctx, at, v)
	case v.Env != "":
		text, err := r.env(at, v)
		if err != nil {
			return "", err
		}
		v.Value = text
	}
	return fill(at, v)
}

func (r Resolver) secret(ctx context.Context, at referrer, v Value) (string, error) {
	store := at.store
	if store == "" || store == secretStoreKubernetes {
		store = SecretStoreDefault
	}
	var text string
	var there bool
	var err error
	if r.Secret != nil {
		text, there, err = r.Secret(ctx, store, v.SecretKey.Name, v.SecretKey.Key)
	}
	switch {
	case err != nil:
		return "", fmt.Errorf("read key %q of secret %q in store %q for %s of %s %q: %w", v.SecretKey.Key, v.SecretKey.Name, store, v.Name, at.kind, at.Name, err)
	case !there:
		return "", at.fault(v, "refers to key %q of secret %q, which store %q does not have: add it there, or name another store in auth.secretStore", v.SecretKey.Key, v.SecretKey.Name, store)
	}
	return text, nil
}

// envAllowList, if it is set, has the only names that may be read, with spaces between them. Dapr's injector sets it.
const envAllowList = "DAPR_ENV_KEYS"

func (r Resolver) env(at referrer, v Value) (string, error) {
	if r.Env == nil {
		r.Env = func(string) (string, bool) { return "", false }
	}
	if !r.mayRead(v.Env) {
		return "", at.fault(v, "refers to the environment variable %q, which resources may not read: use another name", v.Env)
	}
	text, there := r.Env(v.Env)
	if !there {
		return "", at.fault(v, "refers to the environment variable %q, which is not set: set it, or write a value", v.Env)
	}
	return text, nil
}

// mayRead keeps from resources what belongs to the platform, as in daprd, and the names of ours.
func (r Resolver) mayRead(name string) bool {
	upper := strings.ToUpper(name)
	if upper == "APP_API_TOKEN" || strings.HasPrefix(upper, "DAPR_") || strings.HasPrefix(upper, "QUIPU_") || strings.Contains(name, " ") {
		return false
	}
	list, _ := r.Env(envAllowList)
	if list == "" {
		return true
	}
	for allowed := range strings.FieldsSeq(list) {
		if allowed == upper {
			return true
		}
	}
	return false
}

// fill puts what there is in the place of {uuid}, {podName}, {namespace} and {appID}.
func (r Resolver) fill(at referrer, v Value) (string, error) {
	if !strings.Contains(v.Value, "{") {
		return v.Value, nil
	}
	if strings.Contains(v.Value, "{podName}") && r.PodName == "" {
		return "", at.fault(v, "has {podName}, but there is no pod: write {appID} or {uuid}")
	}
	var b strings.Builder
	for i, part := range strings.Split(v.Value, "{uuid}") {
		if i > 0 {
			b.WriteString(uuid.NewString())
		}
		b.WriteString(part)
	}
	return strings.NewReplacer("{podName}", r.PodName, "{namespace}", r.Namespace+"."+r.App, "{appID}", r.App).Replace(b.String()), nil
}
