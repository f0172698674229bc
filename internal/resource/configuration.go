package resource

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Configuration is how an app's part of the platform behaves.
type Configuration struct {
	Resource
	Spec ConfigurationSpec
}

// ConfigurationSpec has the fields of Dapr's that make a difference here.
type ConfigurationSpec struct {
	HTTPPipeline    Pipeline      `yaml:"httpPipeline"`
	AppHTTPPipeline Pipeline      `yaml:"appHttpPipeline"`
	Secrets         Secrets       `yaml:"secrets"`
	AccessControl   AccessControl `yaml:"accessControl"`
	API             API           `yaml:"api"`
	Tracing         Tracing       `yaml:"tracing"`
	Metric          Metrics       `yaml:"metric"`  // as it was once spelled
	Metrics         Metrics       `yaml:"metrics"` // counts, where it says something
	Components      struct {
		Deny []string `yaml:"deny"` // types, like state.redis or state.redis/v1
	} `yaml:"components"`
	Logging struct {
		API struct {
			Enabled       bool `yaml:"enabled"`
			ObfuscateURLs bool `yaml:"obfuscateURLs"`
		} `yaml:"apiLogging"`
	} `yaml:"logging"`
	Features []struct {
		Name    string `yaml:"name"`
		Enabled bool   `yaml:"enabled"`
	} `yaml:"features"`
}

// Tracing is which requests are recorded, and who is told.
type Tracing struct {
	SamplingRate string `yaml:"samplingRate"` // 0 to 1
	Stdout       bool   `yaml:"stdout"`
	Zipkin       struct {
		Endpoint string `yaml:"endpointAddress"`
	} `yaml:"zipkin"`
	Otel struct {
		Endpoint string   `yaml:"endpointAddress"`
		Protocol string   `yaml:"protocol"` // http or grpc
		Secure   *bool    `yaml:"isSecure"` // nil means true
		Headers  []string `yaml:"headers"`  // like name=value
		Timeout  string   `yaml:"timeout"`
	} `yaml:"otel"`
}

// Metrics is whether requests are counted. What else Dapr has there, like rules for labels, makes no difference here.
type Metrics struct {
	Enabled *bool `yaml:"enabled"` // nil means true
}

// Pipeline is middleware, in order.
type Pipeline struct {
	Handlers []Handler `yaml:"handlers"`
}

// Handler names a component that is middleware.
type Handler struct {
	Name    string `yaml:"name"`
	Type    string `yaml:"type"`
	Version string `yaml:"version"`
}

// Secrets say which secrets may be read.
type Secrets struct {
	Scopes []SecretScope `yaml:"scopes"`
}

// SecretScope is about one store.
type SecretScope struct {
	Store   string   `yaml:"storeName"`
	Default string   `yaml:"defaultAccess"` // allow or deny
	Allowed []string `yaml:"allowedSecrets"`
	Denied  []string `yaml:"deniedSecrets"`
}

// AccessControl says who may invoke an app.
type AccessControl struct {
	DefaultAction string      `yaml:"defaultAction"`
	TrustDomain   string      `yaml:"trustDomain"`
	Policies      []AppPolicy `yaml:"policies"`
}

// AppPolicy is about one caller.
type AppPolicy struct {
	App           string      `yaml:"appId"`
	DefaultAction string      `yaml:"defaultAction"`
	TrustDomain   string      `yaml:"trustDomain"`
	Namespace     string      `yaml:"namespace"`
	Operations    []Operation `yaml:"operations"`
}

// Operation is a path that a caller may or may not invoke.
type Operation struct {
	Name   string   `yaml:"name"`
	Verbs  []string `yaml:"httpVerb"` // of HTTP, or *
	Action string   `yaml:"action"`   // allow or deny
}

// API says which parts of Dapr's API an app may use.
type API struct {
	Allowed []APIRule `yaml:"allowed"`
	Denied  []APIRule `yaml:"denied"`
}

// APIRule is one part.
type APIRule struct {
	Name     string `yaml:"name"`
	Version  string `yaml:"version"`
	Protocol string `yaml:"protocol"`
}

// Validate answers every field with a value that cannot be used, or that would silently allow what it is meant to forbid.
func (c Configuration) Validate() error {
	var errs []error
	check := func(field string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("spec.%s: %w", field, err))
		}
	}
	c.Spec.HTTPPipeline.validate("httpPipeline", check)
	c.Spec.AppHTTPPipeline.validate("appHttpPipeline", check)
	c.Spec.Secrets.validate(check)
	c.Spec.AccessControl.validate(check)
	for i, rule := range c.Spec.API.Allowed {
		check(fmt.Sprintf("api.allowed[%d]", i), rule.validate())
	}
	for i, rule := range c.Spec.API.Denied {
		check(fmt.Sprintf("api.denied[%d]", i), rule.validate())
	}
	for i, t := range c.Spec.Components.Deny {
		if t == "" || strings.Count(t, "/") > 1 {
			check(fmt.Sprintf("components.deny[%d]", i), fmt.Errorf("%q is no type like state.redis or state.redis/v1", t))
		}
	}
	c.Spec.Tracing.validate(check)
	return errors.Join(errs...)
}

func (p Pipeline) validate(field string, check func(string, error)) {
	for i, h := range p.Handlers {
		if h.Name == "" || h.Type == "" {
			check(fmt.Sprintf("%s.handlers[%d]", field, i), errors.New("a handler has a name and a type"))
		}
	}
}

func (s Secrets) validate(check func(string, error)) {
	stores := map[string]bool{}
	for i, scope := range s.Scopes {
		field := fmt.Sprintf("secrets.scopes[%d]", i)
		switch {
		case scope.Store == "":
			check(field+".storeName", errors.New("it is missing"))
		case stores[scope.Store]:
			check(field+".storeName", fmt.Errorf("there is another scope of %q", scope.Store))
		}
		stores[scope.Store] = true
		check(field+".defaultAccess", action(scope.Default, true))
	}
}

func (a AccessControl) validate(check func(string, error)) {
	check("accessControl.defaultAction", action(a.DefaultAction, true))
	callers := map[[2]string]bool{}
	for i, p := range a.Policies {
		field := fmt.Sprintf("accessControl.policies[%d]", i)
		caller := [2]string{p.App, p.Namespace}
		switch {
		case p.App == "":
			check(field+".appId", errors.New("it is missing"))
		case callers[caller]:
			check(field+".appId", fmt.Errorf("there is another policy of %q", p.App))
		}
		callers[caller] = true
		check(field+".defaultAction", action(p.DefaultAction, true))
		for j, o := range p.Operations {
			o.validate(fmt.Sprintf("%s.operations[%d]", field, j), check)
		}
	}
}

var verbs = []string{"*", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE"}

func (o Operation) validate(field string, check func(string, error)) {
	if o.Name == "" {
		check(field+".name", errors.New("it is missing"))
	}
	check(field+".action", action(o.Action, false))
	for _, verb := range o.Verbs {
		if !slices.Contains(verbs, strings.ToUpper(verb)) {
			check(field+".httpVerb", fmt.Errorf("%q is no verb of HTTP, nor *", verb))
		}
	}
}

func (r APIRule) validate() error {
	switch {
	case r.Name == "" || r.Version == "":
		return errors.New("a rule has a name, like state, and a version, like v1.0")
	case !strings.EqualFold(r.Protocol, "http") && !strings.EqualFold(r.Protocol, "grpc"):
		return fmt.Errorf("protocol %q is neither http nor grpc", r.Protocol)
	}
	return nil
}

func (t Tracing) validate(check func(string, error)) {
	if rate, err := strconv.ParseFloat(t.SamplingRate, 64); t.SamplingRate != "" && (err != nil || !(rate >= 0 && rate <= 1)) {
		check("tracing.samplingRate", fmt.Errorf("%q is not between 0 and 1", t.SamplingRate))
	}
	if p := t.Otel.Protocol; p != "" && p != "http" && p != "grpc" {
		check("tracing.otel.protocol", fmt.Errorf("%q is neither http nor grpc", p))
	}
	_, err := OptionalDuration(t.Otel.Timeout, 0)
	check("tracing.otel.timeout", err)
}

// Allows tells what an action or an access says: allow, in any case of letters.
func Allows(action string) bool { return strings.EqualFold(action, "allow") }

func action(s string, optional bool) error {
	if optional && s == "" || Allows(s) || strings.EqualFold(s, "deny") {
		return nil
	}
	return fmt.Errorf("%q is neither allow nor deny", s)
}
