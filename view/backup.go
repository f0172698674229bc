package view

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/quipu-run/quipu"
)

// SnapshotCopy is a snapshot that Backup has linked into its staging folder.
type SnapshotCopy struct {
	Folder string    // its name in the staging folder, and in the folder "snap" of a store
	Upto   quipu.Seq // the newest record that it covers, of any book
}

// Backup links the snapshots into the folder staging, which is on the same file system and not there yet, and then calls hold.
// Until hold returns no snapshot is made and no book is trimmed, so a copy of the log that hold makes has all that the
// snapshots lack. They come oldest first; none says that the log has everything.
func (s *Store) Backup(staging string, hold func() error) (copies []SnapshotCopy, err error) {
	s.snapping.Lock()
	defer s.snapping.Unlock()
	if err := s.fs.MkdirAll(staging, 0o700); err != nil {
		return nil, fmt.Errorf("make staging folder: %w", err)
	}
	s.mu.Lock()
	snaps := s.snaps
	s.mu.Unlock()
	for _, snap := range snaps {
		upto, err := s.coveredBy(snap)
		if err == nil {
			err = s.link(s.path("snap", snap.folder()), s.fs.PathJoin(staging, snap.folder()))
		}
		if err != nil {
			return nil, fmt.Errorf("link snapshot %s: %w", snap.folder(), err)
		}
		copies = append(copies, SnapshotCopy{snap.folder(), upto})
	}
	return copies, hold()
}

// coveredBy is the newest record that a snapshot has, of any book that is open.
func (s *Store) coveredBy(snap snapshot) (upto quipu.Seq, err error) {
	o := s.pebbleOptions()
	o.ReadOnly = true
	db, err := pebble.Open(s.path("snap", snap.folder()), o)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	for _, b := range s.openBooks() {
		at, err := readPosition(db, b.prefix)
		if err != nil {
			return 0, err
		}
		upto = max(upto, at.seq)
	}
	return upto, nil
}

// link makes a folder of links to the files of another. Files of a snapshot never change.
func (s *Store) link(from, to string) error {
	if err := s.fs.MkdirAll(to, 0o700); err != nil {
		return err
	}
	names, err := s.fs.List(from)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := s.fs.Link(s.fs.PathJoin(from, name), s.fs.PathJoin(to, name)); err != nil {
			return err
		}
	}
	return nil
}
