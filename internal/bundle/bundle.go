// Package bundle turns the folder of an application into one byte string and back.
//
// A bundle is a tar archive compressed with gzip. Pack is deterministic: the same files give the same
// bytes, whoever packs them and whenever, so that a deploy of unchanged sources is recognised by its hash.
// Entries are sorted by path; they carry no times and no owners, and only the executable bit of the mode.
//
//	entry   := directory "a/" | file "a/b" (0644 or 0755) | symbolic link, relative, that stays inside
//	limits  := BytesMax bytes of files, BytesMax bytes compressed, EntriesMax entries, pathBytesMax a path
//
// Unpack trusts nothing: a bundle comes from outside. No entry can be written, and no link can point,
// outside the target folder; a small bundle that grows without end is cut at the limits.
//
// Neither function syncs anything to disk: Unpack into a folder that counts only once it is renamed, and
// remove what a crash left half written.
package bundle

import (
	"fmt"
	"path"
	"strings"

	"github.com/quipu-run/quipu"
)

// Limits of a bundle.
const (
	BytesMax     = 64 << 20 // all files together; and the compressed form
	EntriesMax   = 50_000
	pathBytesMax = 1024
)

// IgnoreFile lists, in the folder of an application, what stays out of its bundle.
const IgnoreFile = ".quipuignore"

// localPath checks the path of an entry: relative, clean, with forward slashes, inside the folder.
func localPath(op, name string) error {
	switch {
	case len(name) > pathBytesMax:
		return sourceError(op, fmt.Sprintf("the path %.40q… is longer than %d bytes", name, pathBytesMax))
	case name == "" || name == "." || path.Clean(name) != name || strings.ContainsAny(name, "\\\x00"):
		return sourceError(op, fmt.Sprintf("%q is not a clean relative path", name))
	case !inside(name):
		return sourceError(op, fmt.Sprintf("%q leaves the application's folder", name))
	}
	return nil
}

// localLink checks that a link at name with that target stays inside the folder, whatever else the
// folder links. That holds if the link's own folder is a real one (see unpacker.makeLinks) and ".." comes
// only at the start of the target: "a/.." would leave through an "a" that is a link to the top.
func localLink(op, name, target string) error {
	if len(target) > pathBytesMax || target == "" || strings.ContainsAny(target, "\\\x00") {
		return sourceError(op, fmt.Sprintf("the link %q has a target that cannot be used", name))
	}
	if path.IsAbs(target) || !climbsFirst(target) || !inside(path.Join(path.Dir(name), target)) {
		return sourceError(op, fmt.Sprintf("the link %q points to %q, which is outside the application's folder", name, target))
	}
	return nil
}

// climbsFirst tells whether every ".." of a target comes before every name.
func climbsFirst(target string) bool {
	down := false
	for part := range strings.SplitSeq(target, "/") {
		if part == ".." && down {
			return false
		}
		down = down || part != ".." && part != "." && part != ""
	}
	return true
}

// inside tells whether a clean path stays below the folder it is relative to.
func inside(name string) bool {
	return !path.IsAbs(name) && name != ".." && !strings.HasPrefix(name, "../")
}

func sourceError(op, text string) error {
	return &quipu.Error{Code: quipu.CodeSource, Op: op, Text: text,
		Hint: "an application is ordinary files, folders and links below its folder; " + IgnoreFile + " leaves others out"}
}

func sizeError(op, text string) error {
	return &quipu.Error{Code: quipu.CodeBundleSize, Op: op, Text: text,
		Hint: "leave out data and build results: list them in " + IgnoreFile}
}
