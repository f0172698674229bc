package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/resource"
	"github.com/quipu-run/quipu/sdk"
)

// sidecar is what quipu run and quipu daprd know of the application that they are beside.
type sidecar struct {
	appID     string
	resources []string // folders of resource files
	configs   []string // files
	listen    string   // hosts with commas
	bodyMax   string   // like 4Mi
	health    bool
	healthy   sdk.AttachedHealth
	sdk.Attachment
}

// Limits of resource files, and of what they may see of the environment.
const (
	resourceFilesMax = 1000
	resourceBytesMax = 512 << 10
	envBytesMax      = 256 << 10
)

// load checks the settings, and reads the files. lookup and environ are the environment that components refer to.
func (s *sidecar) load(lookup func(string) (string, bool), environ func() []string) (err error) {
	s.Listen = hosts(s.listen)
	if s.BodyBytesMax, err = parseSize(s.bodyMax); err != nil {
		return err
	}
	if s.Health = nil; s.health {
		s.Health = &s.healthy
	}
	if s.Dir == "" {
		if s.Dir, err = os.Getwd(); err != nil {
			return err
		}
	}
	files, err := s.read(lookup, environ)
	s.Resources, s.Env = files.Resources, files.Env
	return err
}

// read reads the resource files, with what they need of the environment.
func (s *sidecar) read(lookup func(string) (string, bool), environ func() []string) (r sdk.AttachedResources, err error) {
	r.Resources, err = readResources(s.resources, s.configs)
	if err != nil {
		return r, err
	}
	set, err := resource.ReadFiles(r.Resources)
	if err != nil {
		return r, err
	}
	r.Env = neededOf(set.For(s.appID), lookup, environ)
	size := 0
	for name, value := range r.Env {
		size += len(name) + len(value)
	}
	if size > envBytesMax {
		return r, usage("the environment has more than the %d KiB that a component of type secretstores.local.env can have", envBytesMax>>10)
	}
	return r, nil
}

// neededOf is the part of the environment that resources refer to: the names that they say, or all of it if it is a secret store.
func neededOf(set resource.Set, lookup func(string) (string, bool), environ func() []string) map[string]string {
	env := map[string]string{}
	take := func(values ...resource.Value) {
		for _, v := range values {
			for _, name := range []string{v.Env, "DAPR_ENV_KEYS"} {
				if value, ok := lookup(name); ok && v.Env != "" {
					env[name] = value
				}
			}
		}
	}
	for _, c := range set.Components {
		take(c.Metadata...)
		if c.Type != "secretstores.local.env" {
			continue
		}
		for _, one := range environ() {
			name, value, _ := strings.Cut(one, "=")
			env[name] = value
		}
	}
	for _, e := range set.HTTPEndpoints {
		take(e.Headers...)
		take(e.TLS.RootCA, e.TLS.Certificate, e.TLS.PrivateKey)
	}
	return env
}

// readResources reads the YAML files of folders, and single files, by their paths.
func readResources(folders, single []string) (map[string]string, error) {
	files, size := map[string]string{}, 0
	add := func(path string) error {
		text, err := readSome(path, resourceBytesMax-size)
		if err != nil {
			return err
		}
		if size += len(text); size > resourceBytesMax || len(files) == resourceFilesMax {
			return usage("there are more resource files than can be used: at most %d, and %d KiB", resourceFilesMax, resourceBytesMax>>10)
		}
		files[path] = string(text)
		return nil
	}
	for _, dir := range folders {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, &quipu.Error{Code: quipu.CodeUsage, Text: fmt.Sprintf("the folder %q of --resources-path cannot be read", dir), Err: err}
		}
		for _, e := range entries {
			if ext := filepath.Ext(e.Name()); e.IsDir() || ext != ".yaml" && ext != ".yml" {
				continue
			}
			if err := add(filepath.Join(dir, e.Name())); err != nil {
				return nil, err
			}
		}
	}
	for _, path := range single {
		if err := add(path); err != nil {
			return nil, &quipu.Error{Code: quipu.CodeUsage, Text: fmt.Sprintf("the file %q of --config cannot be read", path), Err: err}
		}
	}
	return files, nil
}

// readSome reads a file of up to so many bytes, or one more.
func readSome(path string, bytesMax int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, int64(bytesMax)+1))
}

// hosts are those of --dapr-listen-addresses.
func hosts(list string) (all []string) {
	for one := range strings.SplitSeq(list, ",") {
		one = strings.Trim(strings.TrimSpace(one), "[]")
		if one != "" && !slices.Contains(all, one) {
			all = append(all, one)
		}
	}
	return all
}

// loopbacks are the hosts of this machine alone: some programs try ::1 for localhost first.
func loopbacks() []string {
	all := []string{"127.0.0.1"}
	if l, err := net.Listen("tcp", "[::1]:0"); err == nil {
		if l.Close() == nil {
			all = append(all, "::1")
		}
	}
	return all
}

var sizeUnits = map[string]int64{"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}

// parseSize reads a quantity as Kubernetes writes it, like 4Mi. "" and -1 mean the default, which is 0.
func parseSize(text string) (int64, error) {
	digits := strings.TrimRightFunc(text, unicode.IsLetter)
	unit, known := sizeUnits[text[len(digits):]]
	n, err := strconv.ParseFloat(digits, 64)
	switch {
	case text == "" || text == "-1":
		return 0, nil
	case err != nil || !known || !(n >= 0) || n*float64(unit) > 1<<30:
		return 0, usage("the size %q is none: write one up to 1Gi, like 4Mi", text)
	}
	return int64(n * float64(unit)), nil
}
