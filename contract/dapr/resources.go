package dapr

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/quipu-run/quipu"
	yaml "go.yaml.in/yaml/v3"
)

// Limits of resource files.
const (
	fileBytesMax = 1 << 20
	filesMax     = 200
)

// Folders are where Dapr resources are looked for, below that of quipu.yaml.
var Folders = []string{".", "components", "resources"}

// Declared is a subscription that a file declares.
type Declared struct {
	File    string
	Line    int
	Name    string
	Scopes  []string // functions; none means all that are Dapr applications
	Trigger quipu.TopicTrigger
}

// For tells whether the subscription is one of a function.
func (d Declared) For(function string) bool {
	return len(d.Scopes) == 0 || slices.Contains(d.Scopes, function)
}

// ReadResources reads the YAML files of Folders. Documents of others than Dapr are left alone; those of Dapr that make
// no difference here, such as components, are told in warnings. CodeManifest, CodeNoPubSub and CodeAppCallback, with
// file and line.
func ReadResources(fsys fs.FS) (all []Declared, warnings []string, err error) {
	files := 0
	for _, folder := range Folders {
		entries, err := fs.ReadDir(fsys, folder)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		for _, e := range entries {
			name := path.Join(folder, e.Name())
			if ext := path.Ext(name); e.IsDir() || ext != ".yaml" && ext != ".yml" {
				continue
			}
			if files++; files > filesMax {
				return nil, nil, manifest("there are more than %d YAML files", filesMax)
			}
			more, warn, err := readFile(fsys, name)
			if err != nil {
				return nil, nil, err
			}
			all, warnings = append(all, more...), append(warnings, warn...)
		}
	}
	return all, warnings, nil
}

func readFile(fsys fs.FS, name string) ([]Declared, []string, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, fileBytesMax+1))
	if err != nil {
		return nil, nil, err
	}
	if len(text) > fileBytesMax {
		return nil, nil, manifest("%s has more than %d bytes", name, fileBytesMax)
	}
	return ParseResources(name, text)
}

func manifest(format string, args ...any) error {
	return &quipu.Error{Code: quipu.CodeManifest, Op: "app.read", Text: fmt.Sprintf(format, args...), Hint: quipu.Codes[quipu.CodeManifest].Next}
}

// resource is one document.
type resource struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	Metadata   struct {
		Name string `yaml:"name"`
	} `yaml:"metadata"`
	Spec   yaml.Node `yaml:"spec"`
	Scopes []string  `yaml:"scopes"`
}

// ParseResources reads one file, which may have several documents.
func ParseResources(name string, text []byte) (all []Declared, warnings []string, err error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var doc yaml.Node
		err := decoder.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return all, warnings, nil
		}
		if err != nil {
			if !bytes.Contains(text, []byte("dapr.io/")) {
				return all, warnings, nil // not ours to judge
			}
			return nil, nil, manifest("%s: %s", name, oneLine(err))
		}
		d, warning, err := parseDocument(name, &doc)
		switch {
		case err != nil:
			return nil, nil, err
		case warning != "":
			warnings = append(warnings, warning)
		case d != nil:
			all = append(all, *d)
		}
		if len(all) > subscriptionsMax {
			return nil, nil, manifest("%s: there are more than %d subscriptions", name, subscriptionsMax)
		}
	}
}

// oneLine takes the number of the line to where we have it.
func oneLine(err error) string {
	return strings.Join(strings.Fields(strings.TrimPrefix(err.Error(), "yaml: ")), " ")
}

// parseDocument answers nothing for a document that is none of Dapr's.
func parseDocument(name string, doc *yaml.Node) (*Declared, string, error) {
	var r resource
	if len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, "", nil
	}
	line := doc.Content[0].Line
	at := fmt.Sprintf("%s:%d", name, line)
	err := doc.Decode(&r)
	version, ok := strings.CutPrefix(r.APIVersion, "dapr.io/")
	switch {
	case !ok:
		return nil, "", nil
	case err != nil:
		return nil, "", manifest("%s: %s", at, oneLine(err))
	case r.Kind == "Subscription":
		t, err := r.subscription(at, version)
		return &Declared{File: name, Line: line, Name: r.Metadata.Name, Scopes: r.Scopes, Trigger: t}, "", err
	}
	return nil, r.warning(at), nil
}

// warning says what becomes of a resource that makes no difference.
func (r resource) warning(at string) string {
	if r.Kind != "Component" {
		return fmt.Sprintf("%s: %s %q is not used", at, r.Kind, r.Metadata.Name)
	}
	var spec struct {
		Type string `yaml:"type"`
	}
	_ = r.Spec.Decode(&spec) // a component of no type is not used either
	return fmt.Sprintf("%s: Component %q (%s) is not used: what every namespace has are statestore, shared, pubsub and secretstore", at, r.Metadata.Name, spec.Type)
}

// subscription reads both versions: the first has a route, the second has routes.
func (r resource) subscription(at, version string) (quipu.TopicTrigger, error) {
	var d declared
	if err := r.Spec.Decode(&d); err != nil {
		return quipu.TopicTrigger{}, manifest("%s: Subscription %q: %s", at, r.Metadata.Name, oneLine(err))
	}
	switch version {
	case "v1alpha1":
		if d.Route == "" {
			return quipu.TopicTrigger{}, manifest("%s: Subscription %q of %s has no route", at, r.Metadata.Name, r.APIVersion)
		}
		d.Routes = routes{}
	case "v2alpha1":
		if d.Routes.Default == "" && len(d.Routes.Rules) == 0 {
			return quipu.TopicTrigger{}, manifest("%s: Subscription %q of %s has no routes", at, r.Metadata.Name, r.APIVersion)
		}
		d.Route = ""
	default:
		return quipu.TopicTrigger{}, manifest("%s: Subscription %q is of apiVersion %s; dapr.io/v1alpha1 and dapr.io/v2alpha1 are known", at, r.Metadata.Name, r.APIVersion)
	}
	t, err := d.trigger()
	if err != nil {
		e := *quipu.AsError(err)
		e.Text = at + ": " + e.Text
		return t, &e
	}
	return t, nil
}

// Merge are the subscriptions of a function: what it says itself, and what files declare for it about other topics.
// CodeManifest if two files declare the same.
func Merge(function string, said []quipu.TopicTrigger, declared []Declared) ([]quipu.TopicTrigger, error) {
	all := slices.Clone(said)
	by := map[string]Declared{}
	for _, d := range declared {
		if !d.For(function) {
			continue
		}
		topic := d.Trigger.Name
		if other, twice := by[topic]; twice {
			return nil, manifest("%s:%d: function %s subscribes to topic %q twice, here and in %s:%d", d.File, d.Line, function, topic, other.File, other.Line)
		}
		by[topic] = d
		if !slices.ContainsFunc(said, func(t quipu.TopicTrigger) bool { return t.Name == topic }) {
			all = append(all, d.Trigger)
		}
	}
	return all, nil
}
