package resource

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/quipu-run/quipu"
	yaml "go.yaml.in/yaml/v3"
)

// Limits of resource files.
const (
	fileBytesMax = 1 << 20
	filesMax     = 200
	documentsMax = 1000 // of all files that speak of Dapr
	nameBytesMax = 253
	valuesMax    = 8 << 20 // bytes of all values: aliases make much of little
)

// Folders are where resources are looked for, below that of quipu.yaml.
var Folders = []string{".", "components", "resources"}

// ReadFS reads the files *.yaml and *.yml in folders, not those deeper; a folder may be missing. What is in them may be
// JSON, which is YAML. CodeManifest.
func ReadFS(fsys fs.FS, folders ...string) (Set, error) {
	var r reader
	for _, folder := range folders {
		entries, err := fs.ReadDir(fsys, folder)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return Set{}, err
		}
		for _, e := range entries {
			name := path.Join(folder, e.Name())
			if e.IsDir() || !isYAML(name) {
				continue
			}
			if err := r.open(fsys, name); err != nil {
				return Set{}, err
			}
		}
	}
	return r.set, r.set.checkNames()
}

// ReadFiles reads texts by the names of their files, in the order of the names. CodeManifest.
func ReadFiles(files map[string]string) (Set, error) {
	var r reader
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if !isYAML(name) {
			continue
		}
		if err := r.file(name, []byte(files[name])); err != nil {
			return Set{}, err
		}
	}
	return r.set, r.set.checkNames()
}

func isYAML(name string) bool {
	ext := strings.ToLower(path.Ext(name))
	return ext == ".yaml" || ext == ".yml"
}

// reader fills a set, file by file.
type reader struct {
	set              Set
	files, documents int
	values           int // bytes
}

func (r *reader) open(fsys fs.FS, name string) error {
	f, err := fsys.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, fileBytesMax+1))
	if err != nil {
		return err
	}
	return r.file(name, text)
}

// file reads one file, which may have several documents. One that does not speak of Dapr is left alone: it may be a
// template of something else, or a long list of versions.
func (r *reader) file(name string, text []byte) error {
	if r.files++; r.files > filesMax {
		return fault("there are more than %d YAML files", filesMax)
	}
	if !bytes.Contains(text, []byte(group)) {
		return nil
	}
	if len(text) > fileBytesMax {
		return fault("%s has more than %d bytes", name, fileBytesMax)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var node yaml.Node
		err := decoder.Decode(&node)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fault("%s: %s", name, oneLine(err))
		}
		if r.documents++; r.documents > documentsMax {
			return fault("%s: there are more than %d documents in all files", name, documentsMax)
		}
		if err := r.document(name, &node); err != nil {
			return err
		}
	}
}

// group starts the apiVersion of what is Dapr's.
const group = "dapr.io/"

// document is what all kinds of resources have.
type document struct {
	place
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	Metadata   struct {
		Name string `yaml:"name"`
	} `yaml:"metadata"`
	Scopes []string  `yaml:"scopes"`
	Spec   yaml.Node `yaml:"spec"`
	Auth   struct {
		SecretStore string `yaml:"secretStore"`
	} `yaml:"auth"`
}

// document reads one document, unless it is of others.
func (r *reader) document(name string, node *yaml.Node) error {
	if len(node.Content) == 0 || node.Content[0].Kind != yaml.MappingNode {
		return nil
	}
	doc := document{place: place{name, node.Content[0].Line}}
	err := node.Decode(&doc)
	if !strings.HasPrefix(doc.APIVersion, group) {
		return nil
	}
	if err != nil {
		return doc.fault("%s", oneLine(err))
	}
	read, known := r.kinds()[doc.Kind+" "+strings.TrimPrefix(doc.APIVersion, group)]
	switch {
	case doc.Kind == "Subscription": // of whatever version: who reads its spec says which there are
		read = r.subscription
	case !known:
		r.set.Warnings = append(r.set.Warnings, doc.ignored())
		return nil
	}
	if err := doc.checkName(); err != nil {
		return err
	}
	return read(doc)
}

func (r *reader) kinds() map[string]func(document) error {
	return map[string]func(document) error{
		"Component v1alpha1": r.component, "Configuration v1alpha1": r.configuration,
		"Resiliency v1alpha1": r.resiliency, "HTTPEndpoint v1alpha1": r.endpoint,
	}
}

// ignored says of what makes no difference whether there is such a thing at all.
func (d document) ignored() string {
	switch d.Kind {
	case "Component", "Configuration", "Resiliency", "HTTPEndpoint":
		return fmt.Sprintf("%s: %s %q is of apiVersion %.80q and is not used: write dapr.io/v1alpha1", d.place, d.Kind, d.Metadata.Name, d.APIVersion)
	}
	return fmt.Sprintf("%s: %.80s %q is not used", d.place, d.Kind, d.Metadata.Name)
}

// nameForm is that of a segment of a path, as in Dapr.
var nameForm = regexp.MustCompile(`^[^/%\x00-\x1f\x7f]+$`)

func (d document) checkName() error {
	name := d.Metadata.Name
	switch {
	case name == "" && d.Kind == "Subscription": // which nobody refers to
		return nil
	case name == "":
		return d.fault("%s has no name: write metadata: {name: NAME}", d.Kind)
	case len(name) > nameBytesMax || name == "." || name == ".." || !nameForm.MatchString(name):
		return d.fault("%s has the name %.80q: write one of up to %d bytes without / and %%", d.Kind, name, nameBytesMax)
	}
	return nil
}

func (d document) resource() Resource {
	return Resource{File: d.File, Line: d.Line, Name: d.Metadata.Name, Scopes: d.Scopes}
}

func (r *reader) subscription(d document) error {
	r.set.Subscriptions = append(r.set.Subscriptions, Subscription{Resource: d.resource(), APIVersion: d.APIVersion, Spec: d.Spec})
	return nil
}

func (r *reader) configuration(d document) error {
	c := Configuration{Resource: d.resource()}
	err := d.decode(&c.Spec)
	r.set.Configurations = append(r.set.Configurations, c)
	return err
}

func (r *reader) resiliency(d document) error {
	c := Resiliency{Resource: d.resource()}
	err := d.decode(&c.Spec)
	r.set.Resiliencies = append(r.set.Resiliencies, c)
	return err
}

// decode reads the spec. None is one without fields.
func (d document) decode(spec any) error {
	if err := d.Spec.Decode(spec); err != nil {
		return d.fault("%s %q: %s", d.Kind, d.Metadata.Name, oneLine(err))
	}
	return nil
}

// checkNames refuses two components, or two endpoints, of one name that an app would both have.
func (s *Set) checkNames() error {
	components := make([]Resource, len(s.Components))
	for i, c := range s.Components {
		components[i] = c.Resource
	}
	endpoints := make([]Resource, len(s.HTTPEndpoints))
	for i, e := range s.HTTPEndpoints {
		endpoints[i] = e.Resource
	}
	if err := checkTwice("Component", components); err != nil {
		return err
	}
	return checkTwice("HTTPEndpoint", endpoints)
}

func checkTwice(kind string, all []Resource) error {
	seen := map[string][]Resource{}
	for _, r := range all {
		for _, other := range seen[r.Name] {
			if r.overlaps(other) {
				return place{r.File, r.Line}.fault("%s %q is also in %s: rename one of the two, or give them scopes without an app in common",
					kind, r.Name, place{other.File, other.Line})
			}
		}
		seen[r.Name] = append(seen[r.Name], r)
	}
	return nil
}

// overlaps tells whether some app has both.
func (r Resource) overlaps(other Resource) bool {
	return len(r.Scopes) == 0 || len(other.Scopes) == 0 || slices.ContainsFunc(r.Scopes, other.For)
}

// place is where something is written.
type place struct {
	File string `yaml:"-"`
	Line int    `yaml:"-"`
}

func (p place) String() string { return fmt.Sprintf("%s:%d", p.File, p.Line) }

func (p place) fault(format string, args ...any) error {
	return fault("%s: %s", p, fmt.Sprintf(format, args...))
}

func fault(format string, args ...any) error {
	return &quipu.Error{Code: quipu.CodeManifest, Op: "resource.read", Text: fmt.Sprintf(format, args...), Hint: quipu.Codes[quipu.CodeManifest].Next}
}

// oneLine is an error of the YAML decoder without line breaks.
func oneLine(err error) string {
	text := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "yaml: "), "unmarshal errors:")
	return strings.Join(strings.Fields(text), " ")
}
