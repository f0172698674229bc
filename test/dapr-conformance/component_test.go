package conformance

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/dapr/components-contrib/metadata"
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/quipu-run/quipu/sdk"
	"gopkg.in/yaml.v3"
)

// component is what all adapters have: Init declares a component with the properties that the suite gives, in a resource
// file of an application of its own, as a user of Dapr does.
type component struct {
	t    testing.TB
	node *sdk.Client
	name string // of the component, and of the application that has it
	kind string // like state.redis
	dir  string // that paths of its properties are below
	*application
}

func (c *component) declare(properties map[string]string) (err error) {
	c.application, err = attach(c.t, c.node, c.name, program{}, c.resources(properties), c.dir)
	return err
}

// resources are the files of an application that uses the component.
func (c *component) resources(properties map[string]string) map[string]string {
	type pair struct{ Name, Value string }
	var list []pair
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		list = append(list, pair{name, properties[name]})
	}
	return map[string]string{"component.yaml": document(map[string]any{
		"apiVersion": "dapr.io/v1alpha1", "kind": "Component", "metadata": map[string]string{"name": c.name},
		"spec": map[string]any{"type": c.kind, "version": "v1", "metadata": list},
	})}
}

// document is a resource as a file.
func document(resource map[string]any) string {
	text, err := yaml.Marshal(resource)
	if err != nil {
		panic(err) // strings, in maps
	}
	return string(text)
}

// capabilities are what the node tells of the component.
func (c *component) capabilities(ctx context.Context) ([]string, error) {
	told, err := c.GetMetadata(ctx, &rtv1.GetMetadataRequest{})
	if err != nil {
		return nil, err
	}
	for _, one := range told.GetRegisteredComponents() {
		if one.GetName() == c.name && strings.EqualFold(one.GetType(), c.kind) {
			return one.GetCapabilities(), nil
		}
	}
	return nil, fmt.Errorf("metadata does not tell of the component %s of type %s", c.name, c.kind)
}

// GetComponentMetadata is part of all of upstream's interfaces. What may be declared is the node's to say.
func (c *component) GetComponentMetadata() metadata.MetadataMap { return metadata.MetadataMap{} }

// Close takes the application away.
func (c *component) Close() error {
	if c.application != nil {
		c.gone()
	}
	return nil
}
