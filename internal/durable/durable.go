// Package durable makes files and folders of the operating system survive a power cut. What is written through a vfs.FS has its own
// ways, which tests can cut.
package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Sync makes the bytes of a file, or the names in a folder, durable. Whoever else has the file open need not have synced it.
func Sync(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Folders makes the names in dir and in all folders below it durable.
func Folders(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return Sync(path)
	})
}
