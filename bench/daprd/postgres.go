//go:build postgres

package main

import (
	postgres "github.com/dapr/components-contrib/state/postgresql/v2"
	versions "github.com/dapr/dapr/pkg/components"
	"github.com/dapr/dapr/pkg/components/state"
)

// The state store of actors. Without it the sidecar is a tenth smaller, which is what its memory is measured with.
func init() {
	state.DefaultRegistry.RegisterComponentWithVersions("postgresql", versions.Versioning{
		Preferred: versions.VersionConstructor{Version: "v2", Constructor: postgres.NewPostgreSQLStateStore}, Default: "v2"})
}
