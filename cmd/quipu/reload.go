package main

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/quipu-run/quipu/sdk"
)

// keepReading watches the resource files of an attached application, and hands over what changes, until ctx ends. What cannot be used
// is told, and tried again at the next change.
func (s *sidecar) keepReading(ctx context.Context, read func() (sdk.AttachedResources, error), use func(sdk.AttachedResources) error, tell func(error)) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch resource files: %w", err)
	}
	defer w.Close()
	folders := map[string]bool{}
	for _, dir := range s.resources {
		folders[dir] = true
	}
	for _, file := range s.configs { // an editor puts another file in its place
		folders[filepath.Dir(file)] = true
	}
	for dir := range folders {
		if err := w.Add(dir); err != nil {
			return fmt.Errorf("watch %s: %w", dir, err)
		}
	}
	known := s.Resources
	again := func() {
		next, err := read()
		if err == nil && maps.Equal(next.Resources, known) {
			return
		}
		if err == nil {
			known = next.Resources
			err = use(next)
		}
		if ctx.Err() == nil {
			tell(err)
		}
	}
	again() // it may have changed before it was watched
	return onChanges(ctx, w, again)
}

// onChanges calls changed after each burst of events.
func onChanges(ctx context.Context, w *fsnotify.Watcher, changed func()) error {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	var first time.Time // of the events that wait; zero if none does
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-w.Events:
			if !ok {
				return nil
			}
			if first.IsZero() {
				first = time.Now()
			}
			timer.Reset(min(quiet, time.Until(first.Add(quietMax))))
		case err := <-w.Errors:
			return fmt.Errorf("watch resource files: %w", err)
		case <-timer.C:
			first = time.Time{}
			changed()
		}
	}
}
