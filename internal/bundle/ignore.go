package bundle

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/quipu-run/quipu"
)

// builtin is what no bundle wants: our own data, version control, and what build: brings at deploy for
// the node's platform instead of this one's. A line "!node_modules" in IgnoreFile takes one of them in.
var builtin = []string{".quipu", ".git", "node_modules", "__pycache__", "*.pyc", ".DS_Store"}

const ignoreLinesMax = 1000

// Ignore decides what stays out of a bundle.
type Ignore struct{ rules []rule }

type rule struct {
	pattern  string
	anchored bool // has a slash: matched against the whole path, otherwise against the last element
	dirOnly  bool
	keep     bool // starts with !
}

// LoadIgnore reads IgnoreFile of dir, if there is one, after the built-in rules.
// CodeSource if a line is no pattern.
func LoadIgnore(dir string) (Ignore, error) {
	var ig Ignore
	for _, p := range builtin {
		ig.rules = append(ig.rules, rule{pattern: p})
	}
	f, err := os.Open(filepath.Join(dir, IgnoreFile))
	if errors.Is(err, fs.ErrNotExist) {
		return ig, nil
	}
	if err != nil {
		return ig, fmt.Errorf("read %s: %w", IgnoreFile, err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		if err := ig.add(n, lines.Text()); err != nil {
			return ig, err
		}
	}
	return ig, lines.Err()
}

// add takes a line in the form of .gitignore, of which it knows #, !, a trailing slash, a slash that
// anchors, and the wildcards of path.Match; ** is not among them.
func (ig *Ignore) add(n int, line string) error {
	line = strings.TrimSpace(line)
	if line == "" || strings.HasPrefix(line, "#") {
		return nil
	}
	var r rule
	line, r.keep = strings.CutPrefix(line, "!")
	line, r.dirOnly = strings.CutSuffix(line, "/")
	r.anchored = strings.Contains(line, "/")
	r.pattern = strings.TrimPrefix(line, "/")
	_, err := path.Match(r.pattern, "")
	if err != nil || r.pattern == "" || n > ignoreLinesMax || strings.Contains(r.pattern, "**") {
		return &quipu.Error{Code: quipu.CodeSource, Op: "bundle.ignore",
			Text: fmt.Sprintf("%s:%d: %q is not a pattern", IgnoreFile, n, line),
			Hint: fmt.Sprintf("write up to %d lines like *.csv, data/ or /out/*.bin; ** is not known", ignoreLinesMax)}
	}
	ig.rules = append(ig.rules, r)
	return nil
}

// Match tells whether the path, relative to the folder and with forward slashes, stays out. The last
// rule that fits decides. Below a folder that stays out nothing is asked for.
func (ig Ignore) Match(name string, isDir bool) bool {
	out := false
	for _, r := range ig.rules {
		subject := name
		if !r.anchored {
			subject = path.Base(name)
		}
		if ok, _ := path.Match(r.pattern, subject); ok && (isDir || !r.dirOnly) {
			out = !r.keep
		}
	}
	return out
}
