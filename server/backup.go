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
	"strings"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/locallog"
	"github.com/quipu-run/quipu/sdk"
	"github.com/quipu-run/quipu/view"
)

// A backup is a tar archive, or the folder that it unpacks to:
//
//	backup.json     what it is: sdk.Backup
//	log/…           the log as a power cut would have left it
//	views/snap/…    the snapshots of the views that fit it
//	forks/NAME/…    of a fork: where it comes from, and the snapshots of its own views
//	blobs/…         large values and sources
//	SHA256SUMS      one line for each file before, as sha256sum -c reads it; an archive without it was cut short
const (
	backupInfoFile = "backup.json"
	backupSumsFile = "SHA256SUMS"
	backupFormat   = 1
	stagingFolder  = "backup"
)

// Backup writes all that the node has acknowledged, as of the moment at which it begins, while the node goes on. Builds and
// output of functions are not in it: they come back by themselves, or are no data. CodeOverloaded while another is made.
func (n *Node) Backup(ctx context.Context, to io.Writer) (err error) {
	if !n.backups.TryLock() {
		return &quipu.Error{Code: quipu.CodeOverloaded, Op: "backup", Text: "a backup is being made already", Hint: "wait until it is done"}
	}
	defer n.backups.Unlock()
	staging := n.path(stagingFolder)
	if err := os.RemoveAll(staging); err != nil {
		return fmt.Errorf("clear the staging folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(staging)) }()
	pinned, done := n.blobs.Reading()
	defer done()
	var log *locallog.Backup
	n.namespaces.changing.Lock() // no fork comes or goes
	stores, err := n.backupStores(staging, n.storesKept(), func() (err error) {
		log, err = n.log.Backup(filepath.Join(staging, "log"))
		return err
	})
	n.namespaces.changing.Unlock()
	if err != nil {
		return err
	}
	pinned()
	defer func() { err = errors.Join(err, log.Close()) }()
	out := &archive{ctx: ctx, tar: tar.NewWriter(to), now: n.clock.Now()}
	if err := out.json(backupInfoFile, n.describeBackup(log, stores)); err != nil {
		return err
	}
	err = log.Each(func(path string, size int64, r io.Reader) error { return out.add("log/"+path, size, r) })
	if err == nil {
		err = out.stores(staging, stores)
	}
	if err == nil {
		// Blobs come last: one is there before the record that refers to it, and stays while we read at what the log held.
		err = out.files("blobs", n.path("blobs"))
	}
	if err != nil {
		return err
	}
	return out.end()
}

// keptStore is a store of views that a backup holds.
type keptStore struct {
	*view.Store
	fork      string // its name; "" for the node's own store
	origin    []byte // fork.json
	snapshots []view.SnapshotCopy
}

// folder is where a backup and a data directory keep what belongs to it.
func (k keptStore) folder() string {
	if k.fork == "" {
		return "views"
	}
	return "forks/" + k.fork
}

// storesKept are the node's own and those of the forks; what serves a replay is not kept. changing is held.
func (n *Node) storesKept() []keptStore {
	list := []keptStore{{Store: n.store}}
	for _, ns := range n.namespaces.all() {
		if ns.origin != nil && !ns.origin.Scratch {
			list = append(list, keptStore{Store: ns.store, fork: ns.name, origin: ns.origin.encode()})
		}
	}
	return list
}

// backupStores links the snapshots of all stores, and then calls hold: until it returns, no book is trimmed.
func (n *Node) backupStores(staging string, stores []keptStore, hold func() error) ([]keptStore, error) {
	if len(stores) == 0 {
		return nil, hold()
	}
	var rest []keptStore
	first := stores[0]
	snapshots, err := first.Backup(filepath.Join(staging, first.folder()), func() (err error) {
		rest, err = n.backupStores(staging, stores[1:], hold)
		return err
	})
	first.snapshots = snapshots
	return append([]keptStore{first}, rest...), err
}

// describeBackup: a backup can be restored up to any record from where the oldest snapshot of each store ends.
func (n *Node) describeBackup(log *locallog.Backup, stores []keptStore) sdk.Backup {
	b := sdk.Backup{Format: backupFormat, Version: n.cfg.Version, Time: n.clock.Now().UTC(), Tail: log.Tail, Snapshots: []sdk.BackupSnapshot{}}
	for _, k := range stores {
		for _, s := range k.snapshots {
			b.Snapshots = append(b.Snapshots, sdk.BackupSnapshot{Fork: k.fork, Folder: s.Folder, Upto: s.Upto})
		}
		if len(k.snapshots) > 0 {
			b.From = max(b.From, k.snapshots[0].Upto)
		}
	}
	return b
}

// stores adds the snapshots of all stores, and where forks come from.
func (a *archive) stores(staging string, stores []keptStore) error {
	for _, k := range stores {
		if k.fork != "" {
			if err := a.add(k.folder()+"/"+forkFile, int64(len(k.origin)), bytes.NewReader(k.origin)); err != nil {
				return err
			}
		}
		if err := a.files(k.folder()+"/snap", filepath.Join(staging, k.folder())); err != nil {
			return err
		}
	}
	return nil
}

// archive writes files to a tar, and their sums.
type archive struct {
	ctx  context.Context
	tar  *tar.Writer
	now  time.Time
	sums strings.Builder
}

func (a *archive) add(path string, size int64, r io.Reader) error {
	if err := a.ctx.Err(); err != nil {
		return err
	}
	h := &tar.Header{Name: path, Size: size, Mode: 0o600, ModTime: a.now, Format: tar.FormatPAX}
	if err := a.tar.WriteHeader(h); err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(a.tar, sum), r, size); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	fmt.Fprintf(&a.sums, "%s  %s\n", hex.EncodeToString(sum.Sum(nil)), path)
	return nil
}

func (a *archive) json(path string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return a.add(path, int64(len(text)), strings.NewReader(string(text)))
}

// files adds the files below dir. Unfinished blobs are left out.
func (a *archive) files(as, dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == "temp":
			return fs.SkipDir
		case d.IsDir():
			return nil
		}
		below, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		return a.file(as+"/"+filepath.ToSlash(below), path)
	})
}

// file adds one. One that is gone by now is a blob that was collected: at the moment of the backup nothing referred to it.
func (a *archive) file(as, path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(as, "blobs/") {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return a.add(as, info.Size(), f)
}

// end writes the sums, without which nobody takes the archive for whole.
func (a *archive) end() error {
	text := a.sums.String()
	return errors.Join(a.add(backupSumsFile, int64(len(text)), strings.NewReader(text)), a.tar.Close())
}
