package quipu

import (
	"context"
	"time"
)

// Spec is the spec of a Function in quipu.yaml, with defaults filled in.
type Spec struct {
	Source       string            `json:"source,omitempty"`
	Runtime      string            `json:"runtime"`
	Build        []string          `json:"build,omitempty"`
	Command      []string          `json:"command,omitempty"`
	Contract     string            `json:"contract"`
	Protocol     string            `json:"protocol"`
	Atomic       bool              `json:"atomic"`
	Concurrency  int               `json:"concurrency"`
	Scale        Scale             `json:"scale"`
	Timeout      Duration          `json:"timeout"`
	StartTimeout Duration          `json:"startTimeout"`
	Memory       Size              `json:"memory,omitempty"`
	Env          map[string]string `json:"env,omitempty"`
	Triggers     []Trigger         `json:"triggers,omitempty"`
}

// Scale bounds the instances of a function.
type Scale struct {
	Min  int      `json:"min"`
	Max  int      `json:"max"`
	Idle Duration `json:"idle"`
	Warm int      `json:"warm"`
}

// Trigger is one cause of calls. Exactly one field is set.
type Trigger struct {
	HTTP *HTTPTrigger `json:"http,omitempty"`
}

// HTTPTrigger is a route. Path is a pattern of net/http.ServeMux without method and host.
type HTTPTrigger struct {
	Path    string   `json:"path"`
	Methods []string `json:"methods,omitempty"`
}

// Function is a deployed function at its current revision. A revision is immutable.
type Function struct {
	Name     string    `json:"name"`
	Revision string    `json:"revision"` // changes with source or spec
	App      string    `json:"app"`      // functions of one app are deployed and replaced together
	Spec     Spec      `json:"spec"`
	Bundle   BlobRef   `json:"bundle"` // the app's sources, tar and gzip
	Deployed time.Time `json:"deployed"`
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
