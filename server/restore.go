package server

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/durable"
	"github.com/quipu-run/quipu/locallog"
	"github.com/quipu-run/quipu/sdk"
)

// Restoring says what to restore, and where.
type Restoring struct {
	From string    // an archive, a folder, or "-" for an archive in Stdin
	Data string    // directory of the new node; it must not be there, or be empty
	Upto quipu.Seq // the last record that is wanted; 0 means all. What was trimmed or deleted later stays so
	// Tell is called with each file; it may be nil.
	Tell  func(path string, size int64)
	Stdin io.Reader
}

// Restore makes a data directory of a backup. It is there whole, every file checked, or not at all.
// CodeUsage: the directory is in use, or the backup does not reach Upto. CodeCorrupt: it is damaged or was cut short.
func Restore(ctx context.Context, r Restoring) (b sdk.Backup, err error) {
	err = assemble(r.Data, func(temp string) error {
		u := &unpacking{ctx: ctx, dir: temp, tell: r.Tell, sums: map[string]string{}}
		if err := r.each(u.file); err != nil {
			return err
		}
		if err := u.check(); err != nil {
			return err
		}
		b = u.info
		snapshots, err := usable(b, r.Upto)
		if err != nil {
			return err
		}
		for store, folders := range snapshots {
			if err := keepOnly(filepath.Join(temp, store, "snap"), folders); err != nil {
				return err
			}
		}
		b.Tail, err = locallog.Restore(locallog.Options{Dir: filepath.Join(temp, "log")}, r.Upto)
		return err
	})
	return b, err
}

// Unpack writes the archive of a backup as a folder, which is there whole or not at all.
func Unpack(ctx context.Context, archive io.Reader, dir string) (b sdk.Backup, err error) {
	err = assemble(dir, func(temp string) error {
		u := &unpacking{ctx: ctx, dir: temp, whole: true, sums: map[string]string{}}
		if err := eachInTar(archive, u.file); err != nil {
			return err
		}
		b = u.info
		return u.check()
	})
	return b, err
}

// assemble lets fill make a folder beside dir, and gives it the name dir, durably, when it is whole.
func assemble(dir string, fill func(temp string) error) error {
	if err := mustBeEmpty(dir); err != nil {
		return err
	}
	temp := filepath.Clean(dir) + ".unfinished"
	if err := errors.Join(os.RemoveAll(temp), os.MkdirAll(temp, 0o700)); err != nil {
		return fmt.Errorf("make %s: %w", temp, err)
	}
	err := fill(temp)
	if err == nil {
		err = durable.Folders(temp)
	}
	if err == nil {
		err = place(temp, dir)
	}
	if err != nil {
		err = errors.Join(err, os.RemoveAll(temp))
	}
	return err
}

// Inspect reads what a backup says of itself, without checking the rest.
func Inspect(r Restoring) (b sdk.Backup, err error) {
	enough := errors.New("enough")
	err = r.each(func(path string, content io.Reader) error {
		if path != backupInfoFile {
			return notABackup(nil)
		}
		b, err = parseBackup(content)
		return errors.Join(err, enough)
	})
	if errors.Is(err, enough) && b.Format != 0 {
		err = nil
	}
	return b, err
}

func mustBeEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || len(entries) > 0 {
		return &quipu.Error{Code: quipu.CodeUsage, Op: "restore", Err: err,
			Text: fmt.Sprintf("%s is not empty", dir), Hint: "name a directory that is not there yet"}
	}
	return nil
}

// place gives the finished directory its name, durably.
func place(temp, data string) error {
	if err := os.Remove(data); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(temp, data); err != nil {
		return fmt.Errorf("name the data directory: %w", err)
	}
	return durable.Sync(filepath.Dir(filepath.Clean(data)))
}

// usable are the folders of the snapshots that do not go beyond upto, by the folder of their store.
func usable(b sdk.Backup, upto quipu.Seq) (folders map[string]map[string]bool, err error) {
	if upto != 0 && upto < b.From || upto > b.Tail {
		return nil, &quipu.Error{Code: quipu.CodeUsage, Op: "restore",
			Text: fmt.Sprintf("the backup can be restored up to any seq from %s to %s, not to %s", b.From, b.Tail, upto),
			Hint: "quipu restore BACKUP --show tells what is in it"}
	}
	folders = map[string]map[string]bool{keptStore{}.folder(): {}}
	for _, s := range b.Snapshots {
		store := keptStore{fork: s.Fork}.folder()
		if folders[store] == nil {
			folders[store] = map[string]bool{}
		}
		folders[store][s.Folder] = upto == 0 || s.Upto <= upto
	}
	return folders, nil
}

// keepOnly removes the snapshots that are not usable.
func keepOnly(dir string, usable map[string]bool) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) && len(usable) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if usable[e.Name()] {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	for folder, ok := range usable {
		if _, err := os.Stat(filepath.Join(dir, folder)); ok && err != nil {
			return notABackup(err)
		}
	}
	return nil
}

// unpacking puts files of a backup into a folder.
type unpacking struct {
	ctx   context.Context
	dir   string
	whole bool // also what describes the backup
	tell  func(path string, size int64)
	info  sdk.Backup
	sums  map[string]string // of the files that came
	want  string            // the file of sums
}

// pathForm is what a path in a backup can be: nothing that leaves the folder.
var pathForm = regexp.MustCompile(`^(log|log/index|(views|forks/[a-z][-a-z0-9]{0,62})/snap/[0-9a-f]{16}|forks/[a-z][-a-z0-9]{0,62}|blobs/[0-9a-f]{2})/[0-9A-Za-z_][0-9A-Za-z._-]*$`)

func (u *unpacking) file(path string, content io.Reader) error {
	if err := u.ctx.Err(); err != nil {
		return err
	}
	switch {
	case u.want != "":
		return notABackup(fmt.Errorf("%s comes after %s", path, backupSumsFile))
	case path == backupSumsFile:
		text, err := u.describing(path, content)
		u.want = string(text)
		return err
	case path == backupInfoFile:
		text, err := u.describing(path, io.LimitReader(content, backupInfoMax))
		if err != nil {
			return err
		}
		sum := sha256.Sum256(text)
		u.sums[path] = hex.EncodeToString(sum[:])
		u.info, err = parseBackup(bytes.NewReader(text))
		return err
	case u.info.Format == 0 || !pathForm.MatchString(path) || u.sums[path] != "":
		return notABackup(fmt.Errorf("it has no place for %q", path))
	}
	return u.write(path, content)
}

// describing reads a file that describes the backup, and keeps it if all is kept.
func (u *unpacking) describing(path string, content io.Reader) ([]byte, error) {
	text, err := io.ReadAll(content)
	if err == nil && u.whole {
		to := filepath.Join(u.dir, path)
		if err = os.WriteFile(to, text, 0o600); err == nil {
			err = durable.Sync(to)
		}
	}
	return text, err
}

func (u *unpacking) write(path string, content io.Reader) error {
	to := filepath.Join(u.dir, filepath.FromSlash(path))
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	sum := sha256.New()
	size, err := io.Copy(io.MultiWriter(f, sum), content)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	u.sums[path] = hex.EncodeToString(sum.Sum(nil))
	if u.tell != nil {
		u.tell(path, size)
	}
	return nil
}

// check compares what came with what the backup says it has.
func (u *unpacking) check() error {
	if u.want == "" {
		return notABackup(errors.New("it was cut short: its end is missing"))
	}
	lines := strings.Split(strings.TrimSuffix(u.want, "\n"), "\n")
	for _, line := range lines {
		sum, path, ok := strings.Cut(line, "  ")
		if !ok || u.sums[path] != sum {
			return notABackup(fmt.Errorf("%q is missing or damaged", path))
		}
	}
	if len(lines) != len(u.sums) {
		return notABackup(errors.New("it has files that it does not list"))
	}
	return nil
}

const backupInfoMax = 1 << 20

func parseBackup(r io.Reader) (b sdk.Backup, err error) {
	text, err := io.ReadAll(io.LimitReader(r, backupInfoMax))
	if err == nil {
		err = json.Unmarshal(text, &b)
	}
	if err == nil && b.Format != backupFormat {
		return b, &quipu.Error{Code: quipu.CodeDataFormat, Op: "restore",
			Text: fmt.Sprintf("the backup has format %d and this program knows %d", b.Format, backupFormat)}
	}
	if err != nil {
		return b, notABackup(err)
	}
	return b, nil
}

func notABackup(err error) error {
	return &quipu.Error{Code: quipu.CodeCorrupt, Op: "restore", Text: "the backup cannot be used", Err: err, Hint: "use another backup"}
}

// each visits the files of the backup, that of its sums last.
func (r Restoring) each(visit func(path string, content io.Reader) error) error {
	if r.From == "-" {
		return eachInTar(r.Stdin, visit)
	}
	f, err := os.Open(r.From)
	if err != nil {
		return &quipu.Error{Code: quipu.CodeUsage, Op: "restore", Text: "the backup cannot be read", Err: err}
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.IsDir() {
		return eachInFolder(r.From, visit)
	}
	return eachInTar(f, visit)
}

func eachInTar(r io.Reader, visit func(path string, content io.Reader) error) error {
	in := tar.NewReader(r)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return notABackup(err)
		}
		if h.Typeflag != tar.TypeReg {
			return notABackup(fmt.Errorf("%q is no file", h.Name))
		}
		if err := visit(h.Name, in); err != nil {
			return err
		}
	}
}

// eachInFolder visits what a folder lists as its files, so that something beside them does no harm.
func eachInFolder(dir string, visit func(path string, content io.Reader) error) error {
	sums, err := os.ReadFile(filepath.Join(dir, backupSumsFile))
	if err != nil {
		return notABackup(err)
	}
	for line := range strings.Lines(string(sums)) {
		_, path, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		if err := visitFile(dir, path, visit); err != nil {
			return err
		}
	}
	return visitFile(dir, backupSumsFile, visit)
}

func visitFile(dir, path string, visit func(path string, content io.Reader) error) error {
	if !filepath.IsLocal(filepath.FromSlash(path)) {
		return notABackup(fmt.Errorf("%q leaves the folder", path))
	}
	f, err := os.Open(filepath.Join(dir, filepath.FromSlash(path)))
	if err != nil {
		return notABackup(err)
	}
	defer f.Close()
	return visit(path, f)
}
