package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/bundle"
)

const (
	quiet      = 40 * time.Millisecond // an editor's save is several events
	quietMax   = time.Second           // and a program that writes all the time makes no end of them
	foldersMax = 5000
)

// watch calls changed at once, and then after every change of what a bundle of dir would hold, until ctx ends.
// It is told when the first change was. changed runs one at a time; changes during it lead to one more.
func watch(ctx context.Context, dir string, changed func(at time.Time)) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", dir, err)
	}
	defer w.Close()
	t := &tree{dir: dir, w: w}
	if err := t.add(dir); err != nil {
		return err
	}
	changed(time.Now())
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	var first time.Time // of the changes that wait; zero if none does
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, ok := <-w.Events:
			if !ok {
				return nil
			}
			if !t.matters(e) {
				continue
			}
			if first.IsZero() {
				first = time.Now()
			}
			timer.Reset(min(quiet, time.Until(first.Add(quietMax))))
		case err := <-w.Errors:
			return fmt.Errorf("watch %s: %w", dir, err)
		case <-timer.C:
			at := first
			first = time.Time{}
			changed(at)
		}
	}
}

// tree is the folders that are watched.
type tree struct {
	dir string
	w   *fsnotify.Watcher
}

// add watches a folder and all below it that a bundle would hold.
func (t *tree) add(root string) error {
	ignore, err := bundle.LoadIgnore(t.dir)
	if err != nil {
		ignore = bundle.Ignore{} // the deploy tells of it; a save mends it
	}
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // a file, or gone again
		}
		if rel, err := filepath.Rel(t.dir, path); err == nil && rel != "." && ignore.Match(filepath.ToSlash(rel), true) {
			return fs.SkipDir
		}
		if len(t.w.WatchList()) >= foldersMax {
			return &quipu.Error{Code: quipu.CodeBundleSize, Text: fmt.Sprintf("there are more than %d folders to watch", foldersMax),
				Hint: "list folders of data in " + bundle.IgnoreFile}
		}
		return t.w.Add(path)
	})
}

// matters tells whether an event changes the bundle. New folders join the watch.
func (t *tree) matters(e fsnotify.Event) bool {
	if e.Op == fsnotify.Chmod {
		return false
	}
	info, err := os.Lstat(e.Name)
	isDir := err == nil && info.IsDir()
	ignore, err := bundle.LoadIgnore(t.dir)
	rel, relErr := filepath.Rel(t.dir, e.Name)
	if err == nil && relErr == nil && ignore.Match(filepath.ToSlash(rel), isDir) {
		return false
	}
	if isDir && e.Has(fsnotify.Create) {
		// A folder that vanished again, or one too many, is left out; deploy sees what is there.
		_ = t.add(e.Name)
	}
	return true
}
