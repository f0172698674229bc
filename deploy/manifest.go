package deploy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/autoscale"
	"go.yaml.in/yaml/v3"
)

// ManifestFile is what an application's folder must have.
const ManifestFile = "quipu.yaml"

const apiVersion = "quipu.dev/v1"

// Limits of a manifest.
const (
	manifestBytesMax = 1 << 20
	functionsMax     = 500
	concurrencyMax   = 10_000
	instancesMax     = 1000
	queueMax         = 100_000
	timeoutMax       = 24 * time.Hour
	healthBytesMax   = 1024
	retentionMax     = 10 * 366 * 24 * time.Hour
)

// resource is one document of quipu.yaml.
type resource[Spec any] struct {
	APIVersion string   `yaml:"apiVersion"`
	Kind       string   `yaml:"kind"`
	Metadata   metadata `yaml:"metadata"`
	Spec       Spec     `yaml:"spec"`
}

type document = resource[quipu.Spec]

// Kinds of resources.
const (
	kindFunction = "Function"
	kindTopic    = "Topic"
)

type metadata struct {
	Name string `yaml:"name"`
}

// manifest is quipu.yaml as it was read; it knows the lines of its values.
type manifest struct {
	functions []document
	nodes     []*yaml.Node // of the same documents
	topics    map[string]quipu.TopicSpec

	checkSchedule func(cron, timezone string) error
	checkSandbox  func(quipu.Sandbox) error
}

// parseManifest reads and checks the manifest of the application in dir, with the checks of o.
func parseManifest(dir string, o Options) (*manifest, error) {
	text, err := os.ReadFile(filepath.Join(dir, ManifestFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, &quipu.Error{Code: quipu.CodeManifest, Op: "deploy",
			Text: "there is no " + ManifestFile + " in the application's folder",
			Hint: "quipu new python DIR makes an application to start from"}
	}
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	if len(text) > manifestBytesMax {
		return nil, manifestError(1, "the file has %d bytes, the most is %d", len(text), manifestBytesMax)
	}
	m := &manifest{topics: map[string]quipu.TopicSpec{}, checkSchedule: o.CheckSchedule, checkSandbox: o.CheckSandbox}
	if err := m.decode(text); err != nil {
		return nil, err
	}
	for i := range m.functions {
		if err := m.check(i, dir); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// decode reads all documents, twice: into structs, where unknown fields are found, and into nodes, which know
// their lines.
func (m *manifest) decode(text []byte) error {
	strict, lines := yaml.NewDecoder(bytes.NewReader(text)), yaml.NewDecoder(bytes.NewReader(text))
	strict.KnownFields(true)
	for {
		node := &yaml.Node{}
		if err := lines.Decode(node); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return yamlError(err)
		}
		if isEmpty(node) {
			if err := strict.Decode(&document{}); err != nil {
				return yamlError(err)
			}
			continue
		}
		read := m.decodeFunction
		if kind := child(node.Content[0], "kind"); kind != nil && kind.Value == kindTopic {
			read = m.decodeTopic
		}
		if err := read(strict, node); err != nil {
			return err
		}
		if len(m.functions)+len(m.topics) > functionsMax {
			return manifestError(node.Line, "more than %d functions and topics", functionsMax)
		}
	}
	if len(m.functions)+len(m.topics) == 0 {
		return manifestError(1, "there is no function in it")
	}
	return nil
}

func (m *manifest) decodeFunction(from *yaml.Decoder, node *yaml.Node) error {
	doc := document{Spec: quipu.Spec{
		Runtime: "", Contract: "http", Protocol: "http",
		Scale:   quipu.Scale{Max: 10, Idle: quipu.Duration(60 * time.Second)},
		Timeout: quipu.Duration(30 * time.Second), StartTimeout: quipu.Duration(30 * time.Second),
		Async: quipu.AsyncDefault()}}
	if err := from.Decode(&doc); err != nil {
		return yamlError(err)
	}
	m.functions, m.nodes = append(m.functions, doc), append(m.nodes, node)
	return nil
}

func (m *manifest) decodeTopic(from *yaml.Decoder, node *yaml.Node) error {
	doc := resource[quipu.TopicSpec]{}
	if err := from.Decode(&doc); err != nil {
		return yamlError(err)
	}
	at := func(where ...string) int { return lineOf(node, where) }
	name := doc.Metadata.Name
	switch _, twice := m.topics[name]; {
	case doc.APIVersion != apiVersion:
		return manifestError(at("apiVersion"), "apiVersion is %q, but must be %s", doc.APIVersion, apiVersion)
	case name == "":
		return manifestError(at("metadata"), "a topic needs a name")
	case len(name) > quipu.TopicNameMax || strings.HasPrefix(name, quipu.PlatformTopicStart) || strings.ContainsFunc(name, unicode.IsControl):
		return manifestError(at("metadata", "name"), "%q cannot be the name of a topic: %s", name, quipu.Codes[quipu.CodeTopicName].Why)
	case twice:
		return manifestError(at("metadata", "name"), "there are two topics named %q", name)
	case doc.Spec.Retention < 0 || doc.Spec.Retention.Std() > retentionMax:
		return manifestError(at("spec", "retention"), "retention is %s, but must be at most %s", doc.Spec.Retention.Std(), retentionMax)
	}
	m.topics[name] = doc.Spec
	return nil
}

func isEmpty(doc *yaml.Node) bool {
	return len(doc.Content) == 0 || doc.Content[0].Tag == "!!null"
}

var (
	lineForm    = regexp.MustCompile(`line (\d+): (.*)`)
	unknownForm = regexp.MustCompile(`field (\S+) not found in type .*`)
)

// yamlError gives the parser's words our form: file, line, what is wrong.
func yamlError(err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 0
	if found := lineForm.FindStringSubmatch(text); found != nil {
		fmt.Sscan(found[1], &line)
		text = found[2]
	}
	text = unknownForm.ReplaceAllString(text, "unknown field $1")
	text = strings.NewReplacer("!!str ", "", "!!seq", "list", "!!map", "mapping").Replace(text)
	return manifestError(line, "%s", text)
}

func manifestError(line int, format string, args ...any) error {
	where := ManifestFile
	if line > 0 {
		where = fmt.Sprintf("%s:%d", ManifestFile, line)
	}
	return &quipu.Error{Code: quipu.CodeManifest, Op: "deploy", Text: where + ": " + fmt.Sprintf(format, args...),
		Hint: "nothing was deployed; docs/reference/manifest.md lists the fields"}
}

// fault is a manifestError at the line of a value of document i: "spec", "triggers", "0".
func (m *manifest) fault(i int, at []string, format string, args ...any) error {
	return manifestError(lineOf(m.nodes[i], at), format, args...)
}

// lineOf finds the line of a value, or of the nearest mapping around it.
func lineOf(node *yaml.Node, at []string) int {
	if node.Kind == yaml.DocumentNode {
		node = node.Content[0]
	}
	line := node.Line
	for _, name := range at {
		next := child(node, name)
		if next == nil {
			return line
		}
		node, line = next, next.Line
	}
	return line
}

func child(node *yaml.Node, name string) *yaml.Node {
	if i, err := strconv.Atoi(name); err == nil && node.Kind == yaml.SequenceNode && i < len(node.Content) {
		return node.Content[i]
	}
	for k := 0; k+1 < len(node.Content) && node.Kind == yaml.MappingNode; k += 2 {
		if node.Content[k].Value == name {
			return node.Content[k+1]
		}
	}
	return nil
}

// has tells whether a value was written in document i.
func (m *manifest) has(i int, at ...string) bool {
	node := m.nodes[i].Content[0]
	for _, name := range at {
		if node = child(node, name); node == nil {
			return false
		}
	}
	return true
}

var nameForm = regexp.MustCompile(`^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$`)

// check completes document i with defaults and refuses what cannot be.
func (m *manifest) check(i int, dir string) error {
	d := &m.functions[i]
	switch {
	case d.APIVersion != apiVersion:
		return m.fault(i, []string{"apiVersion"}, "apiVersion is %q, but must be %s", d.APIVersion, apiVersion)
	case d.Kind != kindFunction:
		return m.fault(i, []string{"kind"}, "kind is %q, but must be %s or %s", d.Kind, kindFunction, kindTopic)
	case !nameForm.MatchString(d.Metadata.Name):
		return m.fault(i, []string{"metadata", "name"},
			"name %q must be lower-case letters, digits and hyphens, start with a letter, and have at most 63", d.Metadata.Name)
	}
	for j := range i {
		if m.functions[j].Metadata.Name == d.Metadata.Name {
			return m.fault(i, []string{"metadata", "name"}, "there are two functions named %q", d.Metadata.Name)
		}
	}
	if err := m.checkSource(i, dir); err != nil {
		return err
	}
	if err := m.checkDurable(i); err != nil {
		return err
	}
	if err := m.checkNumbers(i); err != nil {
		return err
	}
	if err := m.checkWalls(i); err != nil {
		return err
	}
	if err := m.checkAsync(i); err != nil {
		return err
	}
	return m.checkTriggers(i)
}

func (m *manifest) checkSource(i int, dir string) error {
	s := &m.functions[i].Spec
	rt, ok := runtimes[s.Runtime]
	if !ok {
		return m.fault(i, []string{"spec", "runtime"}, "runtime is %q, but must be one of %s", s.Runtime, runtimeNames())
	}
	if s.Contract != quipu.ContractHTTP && s.Contract != quipu.ContractDapr {
		return m.fault(i, []string{"spec", "contract"}, "contract is %q, but must be %s or %s", s.Contract, quipu.ContractHTTP, quipu.ContractDapr)
	}
	if s.Protocol != quipu.ProtocolHTTP && (s.Protocol != quipu.ProtocolGRPC || s.Contract != quipu.ContractDapr) {
		return m.fault(i, []string{"spec", "protocol"}, "protocol is %q, but must be %s, or %s for the contract %s", s.Protocol,
			quipu.ProtocolHTTP, quipu.ProtocolGRPC, quipu.ContractDapr)
	}
	if err := m.checkHealth(i); err != nil {
		return err
	}
	if s.Source == "" {
		s.Source = "."
	}
	clean := path.Clean(filepath.ToSlash(s.Source))
	if path.IsAbs(clean) || clean == ".." || strings.HasPrefix(clean, "../") {
		return sourceFault(m, i, "source %q leaves the application's folder", s.Source)
	}
	info, err := os.Stat(filepath.Join(dir, filepath.FromSlash(clean)))
	if err != nil {
		return sourceFault(m, i, "source %q is not there", s.Source)
	}
	s.Source = clean
	if len(s.Command) == 0 && s.Runtime == "node" && scriptEntry(dir, clean) != "" {
		s.Command = scriptCommand
	}
	if len(s.Command) == 0 {
		if s.Command = rt.command(clean, info.IsDir()); s.Command == nil {
			return m.fault(i, []string{"spec"}, "runtime %s with the folder %q as source needs a command", s.Runtime, s.Source)
		}
	}
	return nil
}

// checkHealth wants a path that can be asked for by GET.
func (m *manifest) checkHealth(i int) error {
	s := m.functions[i].Spec
	switch {
	case s.Health == "":
		return nil
	case s.Protocol == quipu.ProtocolGRPC:
		return m.fault(i, []string{"spec", "health"}, "health is a path of HTTP, which a function with protocol grpc does not answer")
	case !strings.HasPrefix(s.Health, "/") || len(s.Health) > healthBytesMax || strings.ContainsFunc(s.Health, unicode.IsControl):
		return m.fault(i, []string{"spec", "health"}, "health is %.80q, but must be a path that starts with /", s.Health)
	}
	return nil
}

// checkDurable refuses what a journal does not go with.
func (m *manifest) checkDurable(i int) error {
	s := m.functions[i].Spec
	switch {
	case s.Durable && s.Atomic:
		return m.fault(i, []string{"spec", "durable"}, "a function is atomic or durable, not both: an atomic call is one commit at its end, "+
			"and a durable one commits each step when it is done; have a durable function call atomic ones")
	case s.Durable && s.Protocol == quipu.ProtocolGRPC:
		return m.fault(i, []string{"spec", "durable"}, "durable functions are called over HTTP, which protocol grpc does not answer")
	}
	return nil
}

func sourceFault(m *manifest, i int, format string, args ...any) error {
	err := quipu.AsError(m.fault(i, []string{"spec", "source"}, format, args...))
	err.Code = quipu.CodeSource
	return err
}

// Bounds of what an instance may take.
const (
	memoryMin    = 16 << 20
	tmpMax       = 64 << 30
	processesMax = 32768
)

// checkWalls refuses limits that nothing could run in, and a sandbox that the node cannot give.
func (m *manifest) checkWalls(i int) error {
	s := &m.functions[i].Spec
	switch {
	case s.Memory != 0 && s.Memory < memoryMin:
		return m.fault(i, []string{"spec", "memory"}, "memory is %d bytes, but must be at least 16Mi", int64(s.Memory))
	case s.CPU != 0 && s.CPU < 10:
		return m.fault(i, []string{"spec", "cpu"}, "cpu is %dm, but must be at least 10m", int64(s.CPU))
	case s.Sandbox.Tmp > tmpMax:
		return m.fault(i, []string{"spec", "sandbox", "tmp"}, "tmp is %d bytes, but must be at most 64Gi", int64(s.Sandbox.Tmp))
	case s.Sandbox.Processes < 0 || s.Sandbox.Processes > processesMax:
		return m.fault(i, []string{"spec", "sandbox", "processes"}, "processes is %d, but must be from 1 to %d", s.Sandbox.Processes, processesMax)
	}
	if m.checkSandbox == nil {
		return nil
	}
	if err := m.checkSandbox(s.Sandbox); err != nil {
		failed := quipu.AsError(m.fault(i, []string{"spec", "sandbox"}, "%s", quipu.AsError(err).Text))
		failed.Code, failed.Err = quipu.CodeOf(err), err
		return failed
	}
	return nil
}

func (m *manifest) checkNumbers(i int) error {
	s := &m.functions[i].Spec
	if !m.has(i, "spec", "concurrency") {
		s.Concurrency = 80
		if s.Atomic {
			s.Concurrency = 1
		}
	}
	for _, c := range []struct {
		at       []string
		value    int64
		from, to int64
	}{
		{[]string{"spec", "concurrency"}, int64(s.Concurrency), 1, concurrencyMax},
		{[]string{"spec", "scale", "max"}, int64(s.Scale.Max), 1, instancesMax},
		{[]string{"spec", "scale", "min"}, int64(s.Scale.Min), 0, int64(s.Scale.Max)},
		{[]string{"spec", "scale", "warm"}, int64(s.Scale.Warm), 0, int64(s.Scale.Max)},
		{[]string{"spec", "scale", "queue"}, int64(s.Scale.Queue), 0, queueMax},
		{[]string{"spec", "scale", "reserved"}, int64(s.Scale.Reserved), 0, int64(s.Scale.Max) * int64(s.Concurrency)},
	} {
		if c.value < c.from || c.value > c.to {
			return m.fault(i, c.at, "%s is %d, but must be from %d to %d", strings.Join(c.at[1:], "."), c.value, c.from, c.to)
		}
	}
	for name, d := range map[string]quipu.Duration{"timeout": s.Timeout, "startTimeout": s.StartTimeout} {
		if d <= 0 || d.Std() > timeoutMax {
			return m.fault(i, []string{"spec", name}, "%s is %s, but must be more than 0 and at most %s", name, d.Std(), timeoutMax)
		}
	}
	if w := s.Scale.Window.Std(); m.has(i, "spec", "scale", "window") && (w < autoscale.WindowMin || w > autoscale.WindowMax) {
		return m.fault(i, []string{"spec", "scale", "window"}, "window is %s, but must be from %s to %s", w, autoscale.WindowMin, autoscale.WindowMax)
	}
	for name := range s.Env {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			return m.fault(i, []string{"spec", "env"}, "%q cannot be the name of an environment variable", name)
		}
	}
	return nil
}
