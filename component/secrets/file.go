package secrets

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/quipu-run/quipu/internal/component"
)

// Limits of a file.
const (
	fileBytesMax = 16 << 20
	depthMax     = 100
)

// file is a secretstores.local.file: an object of JSON. What is nested is found under the names on the way, with a
// separator between them; if the store is multi-valued, the outermost name is the secret's, and the others are its
// values'.
type file struct {
	host      component.Host
	name      string
	separator string
	multi     bool

	mu      sync.Mutex // guards the fields below
	read    stamp
	secrets map[string]map[string]string
}

// stamp tells one version of a file from another.
type stamp struct {
	changed time.Time
	size    int64
}

// NewFile makes a secretstores.local.file. Metadata: secretsFile, nestedSeparator, multiValued.
func NewFile(_ context.Context, h component.Host, s component.Spec) (any, error) {
	name, err := s.Metadata.Need("secretsFile")
	if err != nil {
		return nil, err
	}
	multi, err := s.Metadata.Bool(false, "multiValued")
	if err != nil {
		return nil, err
	}
	f := &file{host: h, name: name, separator: s.Metadata.Get("nestedSeparator"), multi: multi}
	if f.separator == "" {
		f.separator = ":"
	}
	_, err = f.now()
	return f, err
}

// Secret is component.SecretStore.
func (f *file) Secret(_ context.Context, name string, _ map[string]string) (map[string]string, error) {
	all, err := f.now()
	return maps.Clone(all[name]), err
}

// Secrets is component.SecretStore.
func (f *file) Secrets(context.Context, map[string]string) (map[string]map[string]string, error) {
	all, err := f.now()
	if err != nil {
		return nil, err
	}
	copied := make(map[string]map[string]string, len(all))
	for name, values := range all {
		copied[name] = maps.Clone(values)
	}
	return copied, nil
}

// now is what the file says. What it returns is not changed any more.
func (f *file) now() (map[string]map[string]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.host.Path(f.name))
	if err != nil {
		return nil, fmt.Errorf("secretsFile: %w", err)
	}
	if at := (stamp{info.ModTime(), info.Size()}); f.secrets == nil || at != f.read {
		text, err := f.host.ReadFile(f.name, fileBytesMax)
		if err != nil {
			return nil, fmt.Errorf("secretsFile: %w", err)
		}
		secrets, err := f.parse(text)
		if err != nil {
			return nil, fmt.Errorf("secretsFile %s: %w", f.name, err)
		}
		f.read, f.secrets = at, secrets
	}
	return f.secrets, nil
}

// parse reads a file. Its errors do not quote it.
func (f *file) parse(text []byte) (map[string]map[string]string, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber() // a secret that looks like a number keeps all its digits
	var object map[string]any
	err := d.Decode(&object)
	if err != nil || object == nil {
		return nil, fmt.Errorf("no JSON object, or malformed before byte %d", d.InputOffset()+1)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("something follows the object, at byte %d", d.InputOffset())
	}
	all := map[string]map[string]string{}
	if f.multi {
		for name, value := range object {
			if values, err := f.values(name, value); err != nil {
				return nil, err
			} else if values != nil {
				all[name] = values
			}
		}
		return all, nil
	}
	flat := map[string]string{}
	err = f.flatten(flat, "", object, depthMax)
	for name, value := range flat {
		all[name] = map[string]string{name: value}
	}
	return all, err
}

// values are those of one secret of a multi-valued store. As in Dapr only text and objects are secrets.
func (f *file) values(name string, value any) (map[string]string, error) {
	switch value := value.(type) {
	case string:
		return map[string]string{name: value}, nil
	case map[string]any:
		values := map[string]string{}
		return values, f.flatten(values, "", value, depthMax)
	}
	return nil, nil
}

// flatten puts a value under its name, and what it has in it under longer ones.
func (f *file) flatten(to map[string]string, name string, value any, depth int) error {
	if depth == 0 {
		return fmt.Errorf("nested deeper than %d", depthMax)
	}
	switch value := value.(type) {
	case map[string]any:
		for key, inner := range value {
			if err := f.flatten(to, f.below(name, key), inner, depth-1); err != nil {
				return err
			}
		}
		return nil
	case []any:
		for i, inner := range value {
			if err := f.flatten(to, f.below(name, strconv.Itoa(i)), inner, depth-1); err != nil {
				return err
			}
		}
		return nil
	}
	if _, twice := to[name]; twice {
		return fmt.Errorf("two values have the name %q", name)
	}
	to[name] = ""
	if value != nil {
		to[name] = fmt.Sprint(value)
	}
	return nil
}

func (f *file) below(name, key string) string {
	if name == "" {
		return key
	}
	return name + f.separator + key
}
