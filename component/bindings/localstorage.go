package bindings

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/quipu-run/quipu/internal/cloudevent"
	"github.com/quipu-run/quipu/internal/component"
)

// Limits of a folder of files.
const (
	fileBytesMax = 64 << 20
	filesMax     = 10_000 // of one listing
)

// forbidden are places where a folder of files is never meant, as in Dapr.
var forbidden = []string{"/proc", "/sys", "/boot", "/var/run/secrets", "/run/secrets"}

// temporary starts the names of files that are being written.
const temporary = ".quipu-writing-"

// folder is a bindings.localstorage. A file is written whole or not at all, also in a crash. No name and no link leads out
// of the folder.
type folder struct {
	path string
	root *os.Root
}

// NewLocalStorage makes a bindings.localstorage. Metadata: rootPath, which is made if it is not there.
func NewLocalStorage(_ context.Context, h component.Host, s component.Spec) (any, error) {
	said, err := s.Metadata.Need("rootPath")
	if err != nil {
		return nil, err
	}
	at, err := filepath.Abs(h.Path(said))
	if err != nil {
		return nil, fmt.Errorf("metadata rootPath: %w", err)
	}
	if err := allowed(at); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(at, 0o777); err != nil {
		return nil, fmt.Errorf("metadata rootPath: %w", err)
	}
	root, err := os.OpenRoot(at)
	if err != nil {
		return nil, fmt.Errorf("metadata rootPath: %w", err)
	}
	return &folder{path: at, root: root}, nil
}

// allowed refuses forbidden places, and what links lead to from a path of which the end need not be there yet.
func allowed(at string) error {
	real, rest := at, ""
	for {
		resolved, err := filepath.EvalSymlinks(real)
		if err == nil {
			real = filepath.Join(resolved, rest)
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || real == filepath.Dir(real) {
			return fmt.Errorf("metadata rootPath: %w", err)
		}
		real, rest = filepath.Dir(real), filepath.Join(filepath.Base(real), rest)
	}
	for _, place := range forbidden {
		for _, is := range []string{at, real} {
			if is == place || strings.HasPrefix(is, place+"/") {
				return fmt.Errorf("metadata rootPath is in %s, which is not allowed", place)
			}
		}
	}
	return nil
}

// Close gives the folder back.
func (f *folder) Close() error { return f.root.Close() }

// Operations is component.OutputBinding.
func (f *folder) Operations() []string { return []string{opCreate, opGet, opList, opDelete} }

// Invoke is component.OutputBinding. Request metadata: fileName.
func (f *folder) Invoke(ctx context.Context, r component.BindingRequest) (component.BindingReply, error) {
	name := r.Metadata["fileName"]
	if name == "" && r.Operation == opCreate {
		name = cloudevent.NewID()
	}
	// As in Dapr what would lead out by its name leads to the folder itself.
	name = strings.TrimPrefix(path.Join("/", filepath.ToSlash(name)), "/")
	if name == "" {
		name = "."
	}
	var reply component.BindingReply
	var err error
	switch r.Operation {
	case opCreate:
		reply.Data, err = f.create(name, r.Data)
	case opGet:
		reply.Data, err = f.get(name)
	case opList:
		reply.Data, err = f.list(ctx, name)
	case opDelete:
		err = f.delete(name)
	default:
		err = unsupported("bindings.localstorage", r.Operation)
	}
	return reply, component.Failed("binding.localstorage", err)
}

// decoded is data as Dapr takes it: text in quotes without them, and what is base64 as bytes.
func decoded(data []byte) []byte {
	if text, err := strconv.Unquote(string(data)); err == nil {
		data = []byte(text)
	}
	if plain, err := base64.StdEncoding.DecodeString(string(data)); err == nil {
		return plain
	}
	return data
}

func (f *folder) create(name string, data []byte) ([]byte, error) {
	if name == "." {
		return nil, errors.New("fileName names the folder itself")
	}
	if data = decoded(data); len(data) > fileBytesMax {
		return nil, fmt.Errorf("the file has %d bytes; the most is %d", len(data), fileBytesMax)
	}
	if err := f.root.MkdirAll(path.Dir(name), 0o777); err != nil {
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	beside := path.Join(path.Dir(name), temporary+cloudevent.NewID())
	if err := f.write(beside, data); err != nil {
		return nil, fmt.Errorf("create %s: %w", name, errors.Join(err, f.forget(beside)))
	}
	if err := f.root.Rename(beside, name); err != nil {
		return nil, fmt.Errorf("create %s: %w", name, errors.Join(err, f.forget(beside)))
	}
	return json.Marshal(map[string]string{"fileName": name})
}

func (f *folder) write(name string, data []byte) error {
	file, err := f.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

// forget removes what was begun, if it was.
func (f *folder) forget(name string) error {
	if err := f.root.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (f *folder) get(name string) ([]byte, error) {
	info, err := f.root.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("file not found: %s", name)
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular(): // to open a pipe would wait
		return nil, fmt.Errorf("%s is no file", name)
	}
	file, err := f.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, fileBytesMax+1))
	if err == nil && len(data) > fileBytesMax {
		err = fmt.Errorf("%s has more than %d bytes", name, fileBytesMax)
	}
	return data, err
}

// delete removes a file or an empty folder below the root.
func (f *folder) delete(name string) error {
	if name == "." {
		return errors.New("fileName is required")
	}
	return f.root.Remove(name)
}

// list answers the paths of the files in a folder and below, absolute ones as Dapr does.
func (f *folder) list(ctx context.Context, name string) ([]byte, error) {
	info, err := f.root.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("unable to list files as the file specified is not a directory: %s", name)
	}
	files := []string{}
	err = fs.WalkDir(f.root.FS(), name, func(at string, entry fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if errors.Is(err, fs.ErrNotExist) { // removed meanwhile
			return nil
		}
		if err != nil || entry.IsDir() || strings.HasPrefix(entry.Name(), temporary) {
			return err
		}
		if len(files) == filesMax {
			return fmt.Errorf("there are more than %d files in %s", filesMax, name)
		}
		files = append(files, filepath.Join(f.path, filepath.FromSlash(at)))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return json.Marshal(files)
}
