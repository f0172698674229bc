package component

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Path is where a file of a component's metadata is: below Dir, unless it is absolute.
func (h Host) Path(name string) string {
	if h.Dir == "" || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(h.Dir, name)
}

// ReadFile reads a file of a component's metadata, of at most so many bytes.
func (h Host) ReadFile(name string, bytesMax int64) ([]byte, error) {
	f, err := os.Open(h.Path(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, bytesMax+1))
	if err == nil && int64(len(data)) > bytesMax {
		err = fmt.Errorf("%s has more than %d bytes", name, bytesMax)
	}
	return data, err
}
