package resource

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/quipu-run/quipu"
)

// tree makes files below a folder; a name that ends with a slash is a folder.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		folder := filepath.Dir(path)
		if strings.HasSuffix(name, "/") {
			folder = path
		}
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		if folder != path {
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

const runText = `version: 1
name: shop
common:
  resourcesPath: ./shared
  configFilePath: shared.yaml
  env: {LEVEL: info, DEBUG: true, PORT: 1}
  appProtocol: grpc
  appHealthProbeInterval: 9
  daprdLogDestination: console
  placementHostAddress: somewhere
  colour: red
apps:
  - appDirPath: ./web/
    appPort: 8080
    daprHTTPPort: -1
    command: [node, app.js]
    env: {PORT: 2}
    appProtocol: http
    appSSL: true
    enableAppHealthCheck: true
    appHealthCheckPath: /ready
    containerImage: none
    apPort: 3
  - appID: worker
    appDirPath: work
    resourcesPaths: own, ~/mine
    configFilePath: own/config.yaml
    appLogDestination: file
    daprGRPCPort: 50002
    metricsPort: 9091
    appMaxConcurrency: 5
    logLevel: debug
`

func TestARunHasItsDefaultsAndWhatItsAppsShare(t *testing.T) {
	dir := tree(t, map[string]string{"dapr.yaml": runText, "shared/": "", "shared.yaml": "", "web/.dapr/config.yaml": "", "work/own/config.yaml": "", "home/mine/": "", "home/.dapr/components/": ""})
	r, err := ReadRun(dir, filepath.Join(dir, "home"))
	if err != nil {
		t.Fatal(err)
	}
	in := func(parts ...string) string { return filepath.Join(append([]string{dir}, parts...)...) }
	if r.File != in("dapr.yaml") || r.Name != "shop" || len(r.Apps) != 2 {
		t.Fatalf("%+v", r)
	}
	web, worker := r.Apps[0], r.Apps[1]
	if web.ID != "web" || web.Line != 13 || web.Dir != in("web") || web.Port != 8080 || web.DaprHTTPPort != 0 || !slices.Equal(web.Command, []string{"node", "app.js"}) || web.Protocol != "http" || !web.TLS ||
		!web.HealthCheck || web.HealthPath != "/ready" || web.HealthInterval != 9 || web.AppLogDestination != LogFileAndConsole || web.DaprLogDestination != LogConsole {
		t.Errorf("%+v", web)
	}
	if !slices.Equal(web.Resources, Paths{in("shared")}) || web.ConfigFile != in("web/.dapr/config.yaml") {
		t.Errorf("%q %q", web.Resources, web.ConfigFile)
	}
	if want := map[string]string{"LEVEL": "info", "DEBUG": "true", "PORT": "2"}; !maps.Equal(web.Env, want) {
		t.Errorf("%q", web.Env)
	}
	if worker.ID != "worker" || worker.Protocol != "grpc" || worker.Env["PORT"] != "1" || worker.Command != nil || worker.AppLogDestination != LogFile || worker.DaprGRPCPort != 50002 ||
		worker.MetricsPort != 9091 || worker.ConcurrencyMax != 5 || worker.LogLevel != "debug" || worker.HealthCheck {
		t.Errorf("%+v", worker)
	}
	if !slices.Equal(worker.Resources, Paths{in("work/own"), in("home/mine")}) || worker.ConfigFile != in("work/own/config.yaml") {
		t.Errorf("%q %q", worker.Resources, worker.ConfigFile)
	}
	want := []string{in("dapr.yaml") + `:11: nobody knows the field "colour"`, in("dapr.yaml") + `:23: nobody knows the field "apPort"`}
	if !slices.Equal(r.Warnings, want) {
		t.Errorf("got %q, want %q", r.Warnings, want)
	}
	worker.Env["PORT"] = "3"
	if web.Env["PORT"] != "2" {
		t.Error("apps share an environment")
	}
}

func TestResourcesAreLookedForWhereDaprDoes(t *testing.T) {
	const app = "version: 1\napps:\n- appDirPath: a\n"
	for _, c := range []struct {
		files     []string
		common    string
		resources string
		config    string
	}{
		{nil, "", "", ""},
		{[]string{"home/.dapr/components/", "home/.dapr/resources/", "home/.dapr/config.yaml"}, "", "home/.dapr/components", "home/.dapr/config.yaml"},
		{[]string{"home/.dapr/resources/"}, "", "home/.dapr/resources", ""},
		{[]string{"home/.dapr/components/", "other/.dapr/components/"}, "common: {runtimePath: other}\n", "other/.dapr/components", ""},
		{[]string{"home/.dapr/components/", "c/", "c.yaml"}, "common: {resourcesPaths: [c], configFilePath: c.yaml}\n", "c", "c.yaml"},
		{[]string{"a/.dapr/resources/", "a/.dapr/config.yaml", "c/", "c.yaml"}, "common: {resourcesPaths: [c], configFilePath: c.yaml}\n", "a/.dapr/resources", "a/.dapr/config.yaml"},
	} {
		files := map[string]string{"a/": "", "other.yaml": app + c.common}
		for _, name := range c.files {
			files[name] = ""
		}
		dir := tree(t, files)
		r, err := ReadRun(filepath.Join(dir, "other.yaml"), filepath.Join(dir, "home"))
		if err != nil {
			t.Fatal(err)
		}
		var want Paths
		config := ""
		if c.resources != "" {
			want = Paths{filepath.Join(dir, c.resources)}
		}
		if c.config != "" {
			config = filepath.Join(dir, c.config)
		}
		if got := r.Apps[0]; !slices.Equal(got.Resources, want) || got.ConfigFile != config {
			t.Errorf("%q: %q %q", c.files, got.Resources, got.ConfigFile)
		}
	}
}

func TestARunThatCannotBeIsToldByItsLine(t *testing.T) {
	const head = "version: 1\napps:\n- appDirPath: a\n"
	for text, want := range map[string]string{
		"":                                       "its version is 0: write version: 1",
		"version: 2":                             "its version is 2",
		"version: one":                           "line 1: cannot unmarshal",
		"version: [":                             "dapr.yaml: line 1",
		"version: 1":                             "has no apps: write apps:",
		"version: 1\napps: [{}]":                 "dapr.yaml:2: an app has no appDirPath",
		"version: 1\napps: [~]":                  "dapr.yaml:2: an app has no appDirPath",
		"version: 1\napps:\n- 5":                 "line 3: cannot unmarshal",
		head + "  appPort: x":                    "line 4: cannot unmarshal",
		head + "  appPort: 65536":                "dapr.yaml:3: appPort is 65536",
		head + "  command: go run .":             "line 4: cannot unmarshal",
		head + "  appProtocol: smtp":             `dapr.yaml:3: appProtocol is "smtp": write http, https`,
		head + "  env: {'A=B': c}":               `env has "A=B"`,
		head + "  configFilePath: no":            "dapr.yaml:3: configFilePath: there is no ",
		head + "  resourcesPaths: [n]":           "dapr.yaml:3: resourcesPaths: there is no ",
		head + "  runtimePath: no":               "dapr.yaml:3: runtimePath: there is no ",
		"version: 1\napps:\n- appDirPath: gone":  "dapr.yaml:3: appDirPath: there is no ",
		head + "common: 5":                       "line 4: cannot unmarshal",
		head + "common:\n  configFilePath: gone": "dapr.yaml:5: configFilePath: there is no ",
		head + "  appLogDestination: printer":    `appLogDestination is "printer": write console, file, fileAndConsole`,
		head + "  daprdLogDestination: printer":  `daprdLogDestination is "printer"`,
		"version: 1\napps:\n" + strings.Repeat("- {}\n", 101): "has more than 100 apps",
		"version: 1\n" + strings.Repeat("#", fileBytesMax):    "has more than 1048576 bytes",
	} {
		dir := tree(t, map[string]string{"dapr.yaml": text, "a/": ""})
		_, err := ReadRun(dir, "")
		if quipu.CodeOf(err) != quipu.CodeManifest || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80q: %v, want %s", text, err, want)
		}
	}
	if _, err := ReadRun(t.TempDir(), ""); quipu.CodeOf(err) != quipu.CodeManifest || !strings.Contains(err.Error(), "there is no file") {
		t.Error(err)
	}
}

// A run file never brings its reader down, and what is accepted can be started.
func FuzzRunFilesOfOthers(f *testing.F) {
	f.Add(runText)
	f.Add("version: 1\nx: &a {appDirPath: .}\ncommon: ~\napps: [*a, {<<: *a, env: {A: 1}, resourcesPaths: ' , '}]")
	f.Fuzz(func(t *testing.T, text string) {
		dir := t.TempDir()
		r, err := parseRun(filepath.Join(dir, RunFile), []byte(text), "")
		if err != nil {
			if quipu.CodeOf(err) != quipu.CodeManifest {
				t.Fatal(err)
			}
			return
		}
		for _, a := range r.Apps {
			if a.ID == "" || !filepath.IsAbs(a.Dir) || a.Protocol == "" || a.Port < 0 || a.Env == nil {
				t.Fatalf("%+v", a)
			}
		}
	})
}
