package locallog

import (
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// indexFS orders what Pebble does with its markers, the empty files whose names say which MANIFEST is current. Pebble
// creates a MANIFEST, then a marker for it, removes the old marker, and syncs the directory once. A file system that
// persists names in any order may keep the marker and lose what it names, or lose both markers; found by
// TestACrashAtAnyFileOperationLosesNothingAcknowledged. So the directory is synced before either step.
type indexFS struct{ vfs.FS }

func isMarker(fs vfs.FS, name string) bool { return strings.HasPrefix(fs.PathBase(name), "marker.") }

// Create implements vfs.FS.
func (f indexFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if isMarker(f.FS, name) {
		if err := syncDir(f.FS, f.PathDir(name)); err != nil {
			return nil, err
		}
	}
	return f.FS.Create(name, category)
}

// Remove implements vfs.FS.
func (f indexFS) Remove(name string) error {
	if isMarker(f.FS, name) {
		if err := syncDir(f.FS, f.PathDir(name)); err != nil {
			return err
		}
	}
	return f.FS.Remove(name)
}

// Unwrap implements vfs.FS.
func (f indexFS) Unwrap() vfs.FS { return f.FS }
