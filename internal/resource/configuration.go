package resource

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
	Components      struct {
		Deny []string `yaml:"deny"`
	} `yaml:"components"`
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
	Verbs  []string `yaml:"httpVerb"`
	Action string   `yaml:"action"`
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
