package resource

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v3"
)

// RunFile is the name of the file of a multi-app run in a folder.
const RunFile = "dapr.yaml"

// Limits and names of a multi-app run.
const (
	runAppsMax    = 100
	runVersion    = 1
	daprFolder    = ".dapr"
	configName    = "config.yaml"
	resourcesName = "resources"
	oldName       = "components" // of the resources folder that dapr init makes
)

// Destinations of logs.
const (
	LogConsole        = "console"
	LogFile           = "file"
	LogFileAndConsole = "fileAndConsole"
)

// Run is a multi-app run: what its file says, with defaults filled in.
type Run struct {
	File     string
	Name     string
	Apps     []RunApp
	Warnings []string // about fields that nobody knows
}

// RunApp is one application of a Run. Paths are absolute. Numbers that are 0 were not said.
type RunApp struct {
	RunShared      `yaml:",inline"`
	Line           int      `yaml:"-"`
	ID             string   `yaml:"appID"`      // default: the name of Dir
	Dir            string   `yaml:"appDirPath"` // required; where Command runs
	ChannelAddress string   `yaml:"appChannelAddress"`
	Port           int      `yaml:"appPort"`
	DaprHTTPPort   int      `yaml:"daprHTTPPort"`
	DaprGRPCPort   int      `yaml:"daprGRPCPort"`
	InternalPort   int      `yaml:"daprInternalGRPCPort"`
	MetricsPort    int      `yaml:"metricsPort"`
	ProfilePort    int      `yaml:"profilePort"`
	Socket         string   `yaml:"unixDomainSocket"`
	Command        []string `yaml:"command"` // none if it is started by somebody else
}

// RunShared is what the common section may say for all apps.
type RunShared struct {
	ConfigFile         string            `yaml:"configFilePath"` // "" for none
	Resources          Paths             `yaml:"resourcesPaths"` // folders
	Env                map[string]string `yaml:"env"`
	Protocol           string            `yaml:"appProtocol"` // default http
	TLS                bool              `yaml:"appSSL"`
	ListenAddresses    string            `yaml:"apiListenAddresses"`
	LogLevel           string            `yaml:"logLevel"`
	ConcurrencyMax     int               `yaml:"appMaxConcurrency"`
	BodyBytesMax       string            `yaml:"maxBodySize"`    // like 4Mi
	HeaderBytesMax     string            `yaml:"readBufferSize"` // like 4Ki
	HealthCheck        bool              `yaml:"enableAppHealthCheck"`
	HealthPath         string            `yaml:"appHealthCheckPath"`
	HealthInterval     int               `yaml:"appHealthProbeInterval"` // seconds
	HealthTimeout      int               `yaml:"appHealthProbeTimeout"`  // milliseconds
	HealthThreshold    int               `yaml:"appHealthThreshold"`
	APILogging         bool              `yaml:"enableApiLogging"`
	AppLogDestination  string            `yaml:"appLogDestination"`   // default LogFileAndConsole
	DaprLogDestination string            `yaml:"daprdLogDestination"` // default LogFile

	ResourcesOld string `yaml:"resourcesPath"` // one more of Resources
	RuntimePath  string `yaml:"runtimePath"`   // folder that has .dapr, instead of the home
}

// runUnused are fields of Dapr that make no difference here.
var runUnused = []string{"enableProfiling", "placementHostAddress", "schedulerHostAddress", "containerImage", "containerImagePullPolicy", "createService"}

// Paths are a list, or text with commas.
type Paths []string

// UnmarshalYAML reads either.
func (p *Paths) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode {
		return n.Decode((*[]string)(p))
	}
	for one := range strings.SplitSeq(n.Value, ",") {
		if one = strings.TrimSpace(one); one != "" {
			*p = append(*p, one)
		}
	}
	return nil
}

// ReadRun reads the file of a multi-app run, or RunFile in a folder. Defaults are those of the Dapr CLI: resources are
// the app's own, else .dapr/resources in its folder, else those of the common section, else .dapr/components in home;
// and the configuration is found in the same way. What is missing in home is nothing. CodeManifest, with file and line.
func ReadRun(name, home string) (Run, error) {
	name, err := filepath.Abs(name)
	if err != nil {
		return Run{}, err
	}
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		name = filepath.Join(name, RunFile)
	}
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return Run{}, fault("there is no file %s", name)
	}
	if err != nil {
		return Run{}, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, fileBytesMax+1))
	if err != nil {
		return Run{}, err
	}
	return parseRun(name, text, home)
}

func parseRun(name string, text []byte, home string) (Run, error) {
	if len(text) > fileBytesMax {
		return Run{}, fault("%s has more than %d bytes", name, fileBytesMax)
	}
	var file struct {
		Version int         `yaml:"version"`
		Name    string      `yaml:"name"`
		Common  yaml.Node   `yaml:"common"`
		Apps    []yaml.Node `yaml:"apps"`
	}
	var whole yaml.Node
	if err := yaml.Unmarshal(text, &whole); err != nil {
		return Run{}, fault("%s: %s", name, oneLine(err))
	}
	if err := whole.Decode(&file); err != nil {
		return Run{}, fault("%s: %s", name, oneLine(err))
	}
	switch {
	case file.Version != runVersion:
		return Run{}, fault("%s: its version is %d: write version: %d", name, file.Version, runVersion)
	case len(file.Apps) == 0:
		return Run{}, fault("%s has no apps: write apps: [{appDirPath: FOLDER, command: [PROGRAM]}]", name)
	case len(file.Apps) > runAppsMax:
		return Run{}, fault("%s has more than %d apps", name, runAppsMax)
	}
	r := runReader{Run: Run{File: name, Name: file.Name}, home: home}
	r.unknown(&whole, &file)
	if err := r.readCommon(&file.Common); err != nil {
		return Run{}, err
	}
	for i := range file.Apps {
		if err := r.app(&file.Apps[i]); err != nil {
			return Run{}, err
		}
	}
	return r.Run, nil
}

// runReader reads the apps of a run, one by one.
type runReader struct {
	Run
	home   string
	common RunShared
}

func (r *runReader) readCommon(n *yaml.Node) error {
	if n.Kind == 0 {
		return nil
	}
	if err := n.Decode(&r.common); err != nil {
		return fault("%s: %s", r.File, oneLine(err))
	}
	r.unknown(n, &r.common)
	return r.paths(place{r.File, n.Line}, filepath.Dir(r.File), &r.common)
}

func (r *runReader) app(n *yaml.Node) error {
	var a RunApp
	if err := n.Decode(&a); err != nil {
		return fault("%s: %s", r.File, oneLine(err))
	}
	r.unknown(n, &a)
	at := place{r.File, n.Line}
	if a.Line = n.Line; a.Dir == "" {
		return at.fault("an app has no appDirPath: write the folder that its command runs in")
	}
	var err error
	if a.Dir, err = r.path(at, "appDirPath", filepath.Dir(r.File), a.Dir); err != nil {
		return err
	}
	if err := r.paths(at, a.Dir, &a.RunShared); err != nil {
		return err
	}
	r.merge(&a)
	if err := at.check(a); err != nil {
		return err
	}
	r.Apps = append(r.Apps, a)
	return nil
}

// paths makes the paths of a section absolute. What is named must be there.
func (r *runReader) paths(at place, below string, s *RunShared) (err error) {
	if s.ResourcesOld != "" {
		s.Resources, s.ResourcesOld = append(s.Resources, s.ResourcesOld), ""
	}
	for i, one := range s.Resources {
		if s.Resources[i], err = r.path(at, "resourcesPaths", below, one); err != nil {
			return err
		}
	}
	if s.ConfigFile, err = r.path(at, "configFilePath", below, s.ConfigFile); err != nil {
		return err
	}
	s.RuntimePath, err = r.path(at, "runtimePath", below, s.RuntimePath)
	return err
}

func (r *runReader) path(at place, field, below, path string) (string, error) {
	if path == "" {
		return "", nil
	}
	if rest, ok := strings.CutPrefix(path, "~"); ok && (rest == "" || rest[0] == '/' || rest[0] == filepath.Separator) {
		path = filepath.Join(r.home, rest)
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(below, path)
	}
	if _, err := os.Stat(path); err != nil {
		return "", at.fault("%s: there is no %s: write one that is there, absolute, or relative to %s", field, path, below)
	}
	return filepath.Clean(path), nil
}

// merge fills in what an app does not say itself: what is found in its folder, what the common section says, defaults.
func (r *runReader) merge(a *RunApp) {
	home := r.home
	for _, said := range []string{r.common.RuntimePath, a.RuntimePath} {
		if said != "" {
			home = said
		}
	}
	if len(a.Resources) == 0 {
		a.Resources = first(existing(a.Dir, daprFolder, resourcesName), r.common.Resources, existing(home, daprFolder, oldName), existing(home, daprFolder, resourcesName))
	}
	if a.ConfigFile == "" {
		found := first(existing(a.Dir, daprFolder, configName), Paths{r.common.ConfigFile}, existing(home, daprFolder, configName))
		a.ConfigFile = strings.Join(found, "")
	}
	env := a.Env
	if env == nil {
		env = map[string]string{}
	}
	for name, value := range r.common.Env {
		if _, own := env[name]; !own {
			env[name] = value
		}
	}
	fields, common := reflect.ValueOf(&a.RunShared).Elem(), reflect.ValueOf(r.common)
	for i := range fields.NumField() {
		if fields.Field(i).IsZero() {
			fields.Field(i).Set(common.Field(i))
		}
	}
	a.Env = env
	a.defaults()
}

// existing is a path, if there is such a file or folder.
func existing(base string, parts ...string) Paths {
	path := filepath.Join(append([]string{base}, parts...)...)
	if _, err := os.Stat(path); base == "" || err != nil {
		return nil
	}
	return Paths{path}
}

// first is a copy of the first that is not empty.
func first(all ...Paths) Paths {
	for _, one := range all {
		if strings.Join(one, "") != "" {
			return slices.Clone(one)
		}
	}
	return nil
}

func (a *RunApp) defaults() {
	for _, d := range []struct {
		field     *string
		otherwise string
	}{{&a.ID, filepath.Base(a.Dir)}, {&a.Protocol, "http"}, {&a.AppLogDestination, LogFileAndConsole}, {&a.DaprLogDestination, LogFile}} {
		if *d.field == "" {
			*d.field = d.otherwise
		}
	}
	for _, n := range []*int{&a.Port, &a.DaprHTTPPort, &a.DaprGRPCPort, &a.InternalPort, &a.MetricsPort, &a.ProfilePort, &a.ConcurrencyMax} {
		*n = max(*n, 0) // the CLI writes -1 for none
	}
}

func (p place) check(a RunApp) error {
	destinations := []string{LogConsole, LogFile, LogFileAndConsole}
	protocols := []string{"http", "https", "grpc", "grpcs", "h2c"}
	switch {
	case !slices.Contains(destinations, a.AppLogDestination):
		return p.fault("appLogDestination is %.40q: write %s", a.AppLogDestination, strings.Join(destinations, ", "))
	case !slices.Contains(destinations, a.DaprLogDestination):
		return p.fault("daprdLogDestination is %.40q: write %s", a.DaprLogDestination, strings.Join(destinations, ", "))
	case !slices.Contains(protocols, strings.ToLower(a.Protocol)):
		return p.fault("appProtocol is %.40q: write %s", a.Protocol, strings.Join(protocols, ", "))
	}
	for name, port := range map[string]int{"appPort": a.Port, "daprHTTPPort": a.DaprHTTPPort, "daprGRPCPort": a.DaprGRPCPort, "metricsPort": a.MetricsPort} {
		if port > 65535 {
			return p.fault("%s is %d: write a port up to 65535", name, port)
		}
	}
	for name := range a.Env {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.Contains(a.Env[name], "\x00") {
			return p.fault("env has %.40q, which cannot be in an environment", name)
		}
	}
	return nil
}

// unknown warns of fields that are neither those of into nor Dapr's.
func (r *runReader) unknown(n *yaml.Node, into any) {
	n = resolved(n)
	if n.Kind == yaml.DocumentNode {
		n = n.Content[0]
	}
	if n.Kind != yaml.MappingNode {
		return
	}
	known := append(fieldsOf(reflect.TypeOf(into).Elem()), runUnused...)
	for i := 0; i+1 < len(n.Content); i += 2 {
		if key := n.Content[i]; key.Tag != "!!merge" && !slices.Contains(known, key.Value) {
			r.Warnings = append(r.Warnings, fmt.Sprintf("%s: nobody knows the field %.40q", place{r.File, key.Line}, key.Value))
		}
	}
}

func fieldsOf(t reflect.Type) (names []string) {
	for field := range t.Fields() {
		name, inline, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		if inline == "inline" {
			names = append(names, fieldsOf(field.Type)...)
			continue
		}
		names = append(names, name)
	}
	return names
}
