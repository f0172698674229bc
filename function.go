package quipu

import (
	"context"
	"time"
)

// Spec is the spec of a Function in quipu.yaml, with defaults filled in.
type Spec struct {
	Source       string            `json:"source,omitempty" yaml:"source"`
	Runtime      string            `json:"runtime" yaml:"runtime"`
	Build        []string          `json:"build,omitempty" yaml:"build"`
	Command      []string          `json:"command,omitempty" yaml:"command"`
	Contract     string            `json:"contract" yaml:"contract"`
	Protocol     string            `json:"protocol" yaml:"protocol"`
	Atomic       bool              `json:"atomic" yaml:"atomic"`
	Concurrency  int               `json:"concurrency" yaml:"concurrency"`
	Scale        Scale             `json:"scale" yaml:"scale"`
	Timeout      Duration          `json:"timeout" yaml:"timeout"`
	StartTimeout Duration          `json:"startTimeout" yaml:"startTimeout"`
	Memory       Size              `json:"memory,omitempty" yaml:"memory"`
	Env          map[string]string `json:"env,omitempty" yaml:"env"`
	Triggers     []Trigger         `json:"triggers,omitempty" yaml:"triggers"`
}

// Scale bounds the instances of a function.
type Scale struct {
	Min  int      `json:"min" yaml:"min"`
	Max  int      `json:"max" yaml:"max"`
	Idle Duration `json:"idle" yaml:"idle"`
	Warm int      `json:"warm" yaml:"warm"`
}

// Trigger is one cause of calls. Exactly one field is set.
type Trigger struct {
	HTTP *HTTPTrigger `json:"http,omitempty" yaml:"http"`
}

// HTTPTrigger is a route. Path is a pattern of net/http.ServeMux without method and host.
type HTTPTrigger struct {
	Path    string   `json:"path" yaml:"path"`
	Methods []string `json:"methods,omitempty" yaml:"methods"`
}

// Function is a deployed function at its current revision. A revision is immutable.
type Function struct {
	Name     string    `json:"name" yaml:"name"`
	Revision string    `json:"revision" yaml:"revision"` // changes with source or spec
	App      string    `json:"app" yaml:"app"`           // functions of one app are deployed and replaced together
	Spec     Spec      `json:"spec" yaml:"spec"`
	Bundle   BlobRef   `json:"bundle" yaml:"bundle"` // the app's sources, tar and gzip
	Deployed time.Time `json:"deployed" yaml:"deployed"`
}

// Functions is what is deployed in a namespace.
type Functions interface {
	// Function finds one by name. CodeNoFunction.
	Function(name string) (Function, error)
	// Functions lists all, by name.
	Functions() []Function
	// Deploy checks, builds and commits an application as a whole; on return it takes traffic.
	// CodeManifest, CodeSource, CodeBuild, CodeRoute, CodeNoTool, CodeBundleSize: nothing changed.
	Deploy(ctx context.Context, app string, bundle []byte) ([]Function, error)
	// Remove takes a function away; calls under way finish. CodeNoFunction.
	Remove(ctx context.Context, name string) error
}
