package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
)

const opPack = "bundle.pack"

// Pack bundles dir without what its Ignore names. CodeSource: dir is no folder, or holds a link that
// leaves it or something that is neither file, folder nor link. CodeBundleSize.
func Pack(ctx context.Context, dir string) ([]byte, error) {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, &quipu.Error{Code: quipu.CodeSource, Op: opPack,
			Text: fmt.Sprintf("%q is not a folder", dir), Hint: "name the folder of quipu.yaml"}
	}
	ignore, err := LoadIgnore(dir)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	p := &packer{dir: dir, ignore: ignore, tar: tar.NewWriter(zip)}
	// WalkDir goes in lexical order, which makes the result deterministic.
	err = filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || file == dir {
			return err
		}
		return p.visit(file, d)
	})
	if err == nil {
		err = errors.Join(p.tar.Close(), zip.Close())
	}
	if err != nil {
		return nil, err
	}
	if out.Len() > BytesMax {
		return nil, sizeError(opPack, fmt.Sprintf("the bundle has %d MiB, the limit is %d", out.Len()>>20, BytesMax>>20))
	}
	return out.Bytes(), nil
}

type packer struct {
	dir     string
	ignore  Ignore
	tar     *tar.Writer
	bytes   int64
	entries int
}

// visit adds one directory entry.
func (p *packer) visit(file string, d fs.DirEntry) error {
	rel, err := filepath.Rel(p.dir, file)
	if err != nil {
		return err
	}
	name := filepath.ToSlash(rel)
	if p.ignore.Match(name, d.IsDir()) {
		if d.IsDir() {
			return fs.SkipDir
		}
		return nil
	}
	if err := localPath(opPack, name); err != nil {
		return err
	}
	if p.entries++; p.entries > EntriesMax {
		return sizeError(opPack, fmt.Sprintf("there are more than %d files and folders", EntriesMax))
	}
	return p.add(file, name, d)
}

func (p *packer) add(file, name string, d fs.DirEntry) error {
	head := &tar.Header{Name: name, Format: tar.FormatPAX, ModTime: time.Unix(0, 0)}
	switch {
	case d.IsDir():
		head.Typeflag, head.Name, head.Mode = tar.TypeDir, name+"/", 0o755
		return p.tar.WriteHeader(head)
	case d.Type()&fs.ModeSymlink != 0:
		return p.addLink(file, head)
	case d.Type().IsRegular():
		return p.addFile(file, head)
	}
	return sourceError(opPack, fmt.Sprintf("%q is neither file, folder nor link", name))
}

func (p *packer) addLink(file string, head *tar.Header) error {
	target, err := os.Readlink(file)
	if err != nil {
		return err
	}
	if err := localLink(opPack, head.Name, filepath.ToSlash(target)); err != nil {
		return err
	}
	head.Typeflag, head.Linkname, head.Mode = tar.TypeSymlink, filepath.ToSlash(target), 0o777
	return p.tar.WriteHeader(head)
}

func (p *packer) addFile(file string, head *tar.Header) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if p.bytes += info.Size(); p.bytes > BytesMax {
		return sizeError(opPack, fmt.Sprintf("the files have more than %d MiB; %q, with %s, is where the limit was passed",
			BytesMax>>20, head.Name, mib(info.Size())))
	}
	head.Typeflag, head.Size, head.Mode = tar.TypeReg, info.Size(), 0o644
	if info.Mode()&0o111 != 0 {
		head.Mode = 0o755
	}
	if err := p.tar.WriteHeader(head); err != nil {
		return err
	}
	if _, err := io.CopyN(p.tar, f, info.Size()); err != nil {
		return fmt.Errorf("%s changed while it was packed: %w", head.Name, err)
	}
	return nil
}

func mib(n int64) string {
	return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(n)/(1<<20)), ".0") + " MiB"
}
