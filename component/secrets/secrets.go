// Package secrets has the secret stores that need nothing but the machine: the environment, and a file of JSON.
//
// Nothing is kept: the environment is that of the application, and a file is read again when it has changed. No value is in an
// error. Stores of others come as pluggable components.
package secrets

import (
	"context"
	"strings"

	"github.com/quipu-run/quipu/internal/component"
)

// Factories are the types of this package.
func Factories() map[string]component.Factory {
	return map[string]component.Factory{
		"secretstores.local.env":  NewEnvironment,
		"secretstores.local.file": NewFile,
	}
}

// environment answers variables of the application. What gives access to the platform and to the application is not there.
type environment struct {
	prefix string
	all    map[string]string
}

// NewEnvironment makes a secretstores.local.env. Metadata: prefix, which the names of secrets do not have.
func NewEnvironment(_ context.Context, h component.Host, s component.Spec) (any, error) {
	return environment{s.Metadata.Get("prefix"), h.Env}, nil
}

// Secret is component.SecretStore.
func (e environment) Secret(_ context.Context, name string, _ map[string]string) (map[string]string, error) {
	value, ok := e.all[e.prefix+name]
	if !ok || name == "" || isOurs(e.prefix+name) {
		return nil, nil
	}
	return map[string]string{name: value}, nil
}

// Secrets is component.SecretStore.
func (e environment) Secrets(context.Context, map[string]string) (map[string]map[string]string, error) {
	all := map[string]map[string]string{}
	for full, value := range e.all {
		if name, ok := strings.CutPrefix(full, e.prefix); ok && name != "" && !isOurs(full) {
			all[name] = map[string]string{name: value}
		}
	}
	return all, nil
}

// isOurs tells of variables that give access to the node or to its applications, which Dapr hides, too.
func isOurs(variable string) bool {
	upper := strings.ToUpper(variable)
	return upper == "APP_API_TOKEN" || strings.HasPrefix(upper, "DAPR_") || strings.HasPrefix(upper, "QUIPU_")
}
