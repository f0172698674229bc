package resource

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	yaml "go.yaml.in/yaml/v3"
)

// VersionDefault is that of a component that names none.
const VersionDefault = "v1"

func (r *reader) component(d document) error {
	var spec struct {
		Type         string    `yaml:"type"`
		Version      string    `yaml:"version"`
		IgnoreErrors bool      `yaml:"ignoreErrors"`
		InitTimeout  string    `yaml:"initTimeout"`
		Metadata     yaml.Node `yaml:"metadata"`
	}
	if err := d.decode(&spec); err != nil {
		return err
	}
	c := Component{Resource: d.resource(), Type: spec.Type, Version: spec.Version, IgnoreErrors: spec.IgnoreErrors, SecretStore: d.Auth.SecretStore}
	if block, name, ok := strings.Cut(c.Type, "."); !ok || block == "" || name == "" {
		return d.fault("Component %q has the type %.80q: write one like state.redis in spec.type", c.Name, c.Type)
	}
	if c.Version == "" {
		c.Version = VersionDefault
	}
	if _, err := time.ParseDuration(spec.InitTimeout); err == nil {
		c.InitTimeout = spec.InitTimeout
	} else if spec.InitTimeout != "" { // as in daprd
		r.set.Warnings = append(r.set.Warnings, fmt.Sprintf("%s: Component %q has the initTimeout %.40q, which is no duration like 30s: 5s is taken", d.place, c.Name, spec.InitTimeout))
	}
	var err error
	c.Metadata, err = r.list(d, "spec.metadata", &spec.Metadata)
	r.set.Components = append(r.set.Components, c)
	return err
}

func (r *reader) endpoint(d document) error {
	var spec struct {
		BaseURL   string    `yaml:"baseUrl"`
		Headers   yaml.Node `yaml:"headers"`
		ClientTLS struct {
			RootCA        yaml.Node `yaml:"rootCA"`
			Certificate   yaml.Node `yaml:"certificate"`
			PrivateKey    yaml.Node `yaml:"privateKey"`
			Renegotiation string    `yaml:"renegotiation"`
		} `yaml:"clientTLS"`
	}
	if err := d.decode(&spec); err != nil {
		return err
	}
	e := HTTPEndpoint{Resource: d.resource(), BaseURL: spec.BaseURL, SecretStore: d.Auth.SecretStore, TLS: EndpointTLS{Renegotiation: spec.ClientTLS.Renegotiation}}
	u, err := url.Parse(e.BaseURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return d.fault("HTTPEndpoint %q has no baseUrl that can be used: write one like https://example.com/path in spec.baseUrl", e.Name)
	}
	if e.Headers, err = r.list(d, "spec.headers", &spec.Headers); err != nil {
		return err
	}
	for _, part := range []struct {
		name string
		from *yaml.Node
		to   *Value
	}{{"rootCA", &spec.ClientTLS.RootCA, &e.TLS.RootCA}, {"certificate", &spec.ClientTLS.Certificate, &e.TLS.Certificate}, {"privateKey", &spec.ClientTLS.PrivateKey, &e.TLS.PrivateKey}} {
		if part.from.Kind == 0 || part.from.Tag == "!!null" {
			continue
		}
		if *part.to, err = d.value("spec.clientTLS."+part.name, part.from); err != nil {
			return err
		}
		part.to.Name = part.name
	}
	if err := d.checkTLS(e.TLS); err != nil {
		return err
	}
	r.set.HTTPEndpoints = append(r.set.HTTPEndpoints, e)
	return nil
}

// What a server of an endpoint may ask for after the handshake.
const (
	RenegotiateNever  = "Never" // also ""
	RenegotiateOnce   = "OnceAsClient"
	RenegotiateFreely = "FreelyAsClient"
)

func (d document) checkTLS(t EndpointTLS) error {
	switch t.Renegotiation {
	case "", RenegotiateNever, RenegotiateOnce, RenegotiateFreely:
	default:
		return d.fault("HTTPEndpoint %q has the clientTLS.renegotiation %.40q: write %s, %s or %s", d.Metadata.Name, t.Renegotiation, RenegotiateNever, RenegotiateOnce, RenegotiateFreely)
	}
	if (t.Certificate.Name == "") != (t.PrivateKey.Name == "") {
		return d.fault("HTTPEndpoint %q has only one of clientTLS.certificate and clientTLS.privateKey: write both, or neither", d.Metadata.Name)
	}
	return nil
}

// list is values, within the limit of all of them.
func (r *reader) list(d document, field string, list *yaml.Node) ([]Value, error) {
	all, err := d.values(field, list)
	for _, v := range all {
		r.values += len(v.Value)
	}
	if err == nil && r.values > valuesMax {
		err = d.fault("the values of all resources have more than %d bytes", valuesMax)
	}
	return all, err
}

// values reads a list of settings. Errors never show a value, which may be a secret.
func (d document) values(field string, list *yaml.Node) ([]Value, error) {
	list = resolved(list)
	switch {
	case list.Kind == 0, list.Tag == "!!null":
		return nil, nil
	case list.Kind != yaml.SequenceNode:
		return nil, place{d.File, list.Line}.fault("%s %q: %s must be a list: write - {name: NAME, value: VALUE}", d.Kind, d.Metadata.Name, field)
	}
	all := make([]Value, 0, len(list.Content))
	for _, item := range list.Content {
		v, err := d.value(field, item)
		if err != nil {
			return nil, err
		}
		if v.Name == "" {
			return nil, place{d.File, item.Line}.fault("%s %q: %s has an item without a name: write - {name: NAME, value: VALUE}", d.Kind, d.Metadata.Name, field)
		}
		all = append(all, v)
	}
	return all, nil
}

// value reads one setting. As in daprd a secretKeyRef counts before a value, and a value before an envRef.
func (d document) value(field string, item *yaml.Node) (Value, error) {
	at := place{d.File, item.Line}
	item = resolved(item)
	if item.Kind != yaml.MappingNode {
		return Value{}, at.fault("%s %q: %s must be a mapping: write {value: VALUE}, {secretKeyRef: {name: NAME, key: KEY}} or {envRef: NAME}", d.Kind, d.Metadata.Name, field)
	}
	var parts struct {
		Name   string    `yaml:"name"`
		Value  yaml.Node `yaml:"value"`
		Secret struct {
			Name string `yaml:"name"`
			Key  string `yaml:"key"`
		} `yaml:"secretKeyRef"`
		Env string `yaml:"envRef"`
	}
	if item.Decode(&parts) != nil { // its error may show a value
		return Value{}, at.fault("%s %q: an item of %s has a field of the wrong type: name and envRef are text, secretKeyRef is {name: NAME, key: KEY}", d.Kind, d.Metadata.Name, field)
	}
	v := Value{Name: parts.Name, SecretKey: SecretRef(parts.Secret)}
	if v.SecretKey.Name != "" && v.SecretKey.Key == "" {
		v.SecretKey.Key = v.SecretKey.Name
	}
	text, has, err := textOf(&parts.Value)
	if err != nil {
		return Value{}, at.fault("%s %q: the value of %s in %s is neither text, a number, true or false, nor can it be JSON", d.Kind, d.Metadata.Name, v.Name, field)
	}
	if v.SecretKey.Name != "" {
		return v, nil
	}
	if v.Value = text; !has {
		v.Env = parts.Env
	}
	return v, nil
}

func resolved(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// textOf is a value as daprd has it, which reads YAML 1.1 as JSON: true for yes, 1.5 for 1.50, JSON for lists and mappings.
// null is no value.
func textOf(n *yaml.Node) (text string, has bool, err error) {
	n = resolved(n)
	if n.Kind == 0 || n.Tag == "!!null" {
		return "", false, nil
	}
	likeYAML11(n)
	var v any
	if err := n.Decode(&v); err != nil {
		return "", false, err
	}
	if text, ok := v.(string); ok {
		return text, true, nil
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(withTextKeys(v)); err != nil {
		return "", false, err
	}
	return strings.TrimSuffix(b.String(), "\n"), true, nil
}

// likeYAML11 gives the scalars below n the types that they have for daprd: some words are flags, and times are text.
func likeYAML11(n *yaml.Node) {
	for _, child := range n.Content {
		likeYAML11(child)
	}
	switch {
	case n.Kind != yaml.ScalarNode:
	case n.Tag == "!!timestamp":
		n.Tag = "!!str"
	case n.Tag == "!!str" && n.Style == 0 && slices.Contains(wordsForTrue, n.Value):
		n.Tag, n.Value = "!!bool", "true"
	case n.Tag == "!!str" && n.Style == 0 && slices.Contains(wordsForFalse, n.Value):
		n.Tag, n.Value = "!!bool", "false"
	}
}

var (
	wordsForTrue  = []string{"y", "Y", "yes", "Yes", "YES", "on", "On", "ON"}
	wordsForFalse = []string{"n", "N", "no", "No", "NO", "off", "Off", "OFF"}
)

// withTextKeys makes the keys of mappings text, as JSON needs them.
func withTextKeys(v any) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = withTextKeys(v[i])
		}
	case map[string]any:
		for key := range v {
			v[key] = withTextKeys(v[key])
		}
	case map[any]any:
		out := make(map[string]any, len(v))
		for key, value := range v {
			out[fmt.Sprint(key)] = withTextKeys(value)
		}
		return out
	}
	return v
}
