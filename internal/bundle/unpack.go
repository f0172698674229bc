package bundle

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/quipu-run/quipu"
)

const opUnpack = "bundle.unpack"

// Unpack writes the bundle r into dir, which must exist and should be empty. On error dir holds a part
// of it. CodeSource: an entry or a link leaves dir, comes twice, or is of a kind a bundle does not have.
// CodeBundleSize: a limit is passed. CodeBadJSON: r is not a bundle at all.
func Unpack(r io.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open the folder to unpack into: %w", err)
	}
	defer root.Close()
	in := &meter{from: r, left: BytesMax}
	zip, err := gzip.NewReader(in)
	if err != nil {
		return malformed(err)
	}
	// Headers and padding count too, or a bundle of nothing but headers could go on for ever.
	tarBytes := &meter{from: zip, left: BytesMax + EntriesMax*4096}
	u := &unpacker{root: root, tar: tar.NewReader(tarBytes)}
	if err := u.all(); err != nil {
		return err
	}
	return u.makeLinks()
}

// unpacker writes through os.Root, so that even a mistake in the checks of paths cannot leave the folder.
type unpacker struct {
	root    *os.Root
	tar     *tar.Reader
	links   []*tar.Header
	bytes   int64
	entries int
}

func (u *unpacker) all() error {
	for {
		head, err := u.tar.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return malformed(err)
		}
		if u.entries++; u.entries > EntriesMax {
			return sizeError(opUnpack, fmt.Sprintf("the bundle has more than %d files and folders", EntriesMax))
		}
		head.Name = strings.TrimSuffix(strings.TrimPrefix(head.Name, "./"), "/")
		if head.Name == "" && head.Typeflag == tar.TypeDir {
			continue // "./", as other tools write it
		}
		if err := localPath(opUnpack, head.Name); err != nil {
			return err
		}
		if err := u.entry(head); err != nil {
			return err
		}
	}
}

func (u *unpacker) entry(head *tar.Header) error {
	switch head.Typeflag {
	case tar.TypeDir:
		return u.once(head.Name, u.root.MkdirAll(head.Name, 0o755))
	case tar.TypeReg:
		return u.file(head)
	case tar.TypeSymlink:
		u.links = append(u.links, head)
		return localLink(opUnpack, head.Name, head.Linkname)
	}
	return sourceError(opUnpack, fmt.Sprintf("%q is neither file, folder nor symbolic link", head.Name))
}

func (u *unpacker) file(head *tar.Header) error {
	if u.bytes += head.Size; head.Size < 0 || u.bytes > BytesMax {
		return sizeError(opUnpack, fmt.Sprintf("the files of the bundle have more than %d MiB", BytesMax>>20))
	}
	if err := u.root.MkdirAll(path.Dir(head.Name), 0o755); err != nil {
		return u.once(head.Name, err)
	}
	mode := fs.FileMode(0o644)
	if head.Mode&0o111 != 0 {
		mode = 0o755
	}
	f, err := u.root.OpenFile(head.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return u.once(head.Name, err)
	}
	_, err = io.Copy(f, u.tar)
	if closeErr := f.Close(); closeErr != nil {
		return fmt.Errorf("write %s: %w", head.Name, closeErr)
	}
	var onDisk *fs.PathError
	if errors.As(err, &onDisk) {
		return fmt.Errorf("write %s: %w", head.Name, err)
	}
	return malformed(err)
}

// makeLinks comes after all files, so that no file is written through a link of the same bundle.
func (u *unpacker) makeLinks() error {
	linked := make(map[string]bool, len(u.links))
	for _, head := range u.links {
		linked[head.Name] = true
	}
	for _, head := range u.links {
		for dir := path.Dir(head.Name); dir != "."; dir = path.Dir(dir) {
			if linked[dir] {
				return sourceError(opUnpack, fmt.Sprintf("the link %q lies behind the link %q", head.Name, dir))
			}
		}
		if err := u.root.MkdirAll(path.Dir(head.Name), 0o755); err != nil {
			return u.once(head.Name, err)
		}
		if err := u.once(head.Name, u.root.Symlink(head.Linkname, head.Name)); err != nil {
			return err
		}
	}
	return nil
}

// once names the entry whose path is taken by an earlier one of another kind; other errors are the disk's.
func (u *unpacker) once(name string, err error) error {
	if err == nil {
		return nil
	}
	if _, statErr := u.root.Lstat(name); statErr == nil || errors.Is(err, fs.ErrExist) || strings.Contains(err.Error(), "not a directory") {
		return sourceError(opUnpack, fmt.Sprintf("the path %q comes twice, as different things", name))
	}
	return fmt.Errorf("write %s: %w", name, err)
}

func malformed(err error) error {
	if err == nil || quipu.CodeOf(err) != quipu.CodeInternal {
		return err
	}
	return &quipu.Error{Code: quipu.CodeBadJSON, Op: opUnpack, Err: err,
		Text: "the body is not a tar archive compressed with gzip", Hint: "quipu deploy DIR makes one"}
}

// meter fails with CodeBundleSize once more than left bytes were read.
type meter struct {
	from io.Reader
	left int64
}

func (m *meter) Read(b []byte) (int, error) {
	n, err := m.from.Read(b)
	if m.left -= int64(n); m.left < 0 {
		return 0, sizeError(opUnpack, fmt.Sprintf("the bundle is over its limit of %d MiB", BytesMax>>20))
	}
	return n, err
}
