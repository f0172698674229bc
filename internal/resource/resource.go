// Package resource reads Dapr's resource files: components, subscriptions, configurations, resiliency policies and HTTP
// endpoints, as daprd reads them, and the file of a multi-app run.
//
// It knows what a resource says, and refuses what can be no resource, with file and line. What a component of a type
// does is not known here, nor whether there is such a type. The namespace in a resource's metadata is not looked at: the
// files of an application are those of its namespace. Nothing is kept: after a crash files are read again.
package resource

import (
	"slices"

	yaml "go.yaml.in/yaml/v3"
)

// Resource is what all kinds have.
type Resource struct {
	File   string
	Line   int
	Name   string
	Scopes []string // app ids; none means all
}

// For tells whether the resource is one of an app.
func (r Resource) For(app string) bool { return len(r.Scopes) == 0 || slices.Contains(r.Scopes, app) }

// Component is a component as it is declared: its values may be references.
type Component struct {
	Resource
	Type         string
	Version      string // VersionDefault if it says nothing
	IgnoreErrors bool
	InitTimeout  string // a duration; "" means 5s
	Metadata     []Value
	SecretStore  string // that its secretKeyRefs mean; "" means SecretStoreDefault
}

// Value is one setting: itself, or a reference to a secret or to the environment.
type Value struct {
	Name      string
	Value     string
	SecretKey SecretRef // set if its Name is not ""; then nothing else is
	Env       string    // set if it is not ""; then Value is not
}

// SecretRef names a value of a secret.
type SecretRef struct{ Name, Key string }

// Subscription is a declared subscription, of either version.
type Subscription struct {
	Resource
	APIVersion string
	Spec       yaml.Node
}

// HTTPEndpoint is a target of invocations outside of the platform.
type HTTPEndpoint struct {
	Resource
	BaseURL     string
	Headers     []Value
	SecretStore string // as that of a component
	TLS         EndpointTLS
}

// EndpointTLS is what a client of an endpoint presents and trusts, as PEM. What is not there has no Name.
type EndpointTLS struct {
	RootCA, Certificate, PrivateKey Value
	Renegotiation                   string // "" is RenegotiateNever
}

// Set is all that the files of an application say.
type Set struct {
	Components     []Component
	Subscriptions  []Subscription
	Configurations []Configuration
	Resiliencies   []Resiliency
	HTTPEndpoints  []HTTPEndpoint
	Warnings       []string // about resources that make no difference
}

// For is what of a set is an app's.
func (s Set) For(app string) Set {
	return Set{Components: scoped(s.Components, app), Subscriptions: scoped(s.Subscriptions, app), Configurations: scoped(s.Configurations, app),
		Resiliencies: scoped(s.Resiliencies, app), HTTPEndpoints: scoped(s.HTTPEndpoints, app), Warnings: s.Warnings}
}

func scoped[R interface{ For(app string) bool }](all []R, app string) (out []R) {
	for _, r := range all {
		if r.For(app) {
			out = append(out, r)
		}
	}
	return out
}
