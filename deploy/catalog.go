package deploy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/view"
)

// formatVersion is that of lines and of changes. Version 1, which had no number, kept of each function what was deployed
// last, whole, where the line is now.
const formatVersion = 2

// Keys of the view.
const (
	functionPrefix = "f/" // name: the line
	revisionPrefix = "r/" // name, slash, revision: the function at that revision
)

func revisionKey(name, revision string) string { return revisionPrefix + name + "/" + revision }

// catalog is what is deployed in a namespace, by function.
type catalog map[string]*history

// load reads everything.
func load(tx *view.Tx) (catalog, error) {
	c := catalog{}
	err := scan(tx, functionPrefix, func(name string, value []byte) error {
		h, err := decodeLine(name, value)
		c[name] = h
		return err
	})
	if err != nil {
		return nil, err
	}
	err = scan(tx, revisionPrefix, func(key string, value []byte) error {
		name, revision, _ := strings.Cut(key, "/")
		f := quipu.Function{}
		if err := json.Unmarshal(value, &f); err != nil {
			return err
		}
		if c[name] != nil {
			c[name].of[revision] = f
		}
		return nil
	})
	return c, err
}

func scan(tx *view.Tx, prefix string, visit func(key string, value []byte) error) error {
	var bad error
	err := tx.Scan(Name, prefix, prefix+"\xff", func(key string, value []byte) bool {
		bad = visit(strings.TrimPrefix(key, prefix), value)
		return bad == nil
	})
	if err == nil && bad != nil {
		err = fmt.Errorf("read functions: %w", bad)
	}
	return err
}

// decodeLine reads a line. What version 1 kept becomes a history of one revision.
func decodeLine(name string, value []byte) (*history, error) {
	h := newHistory(name)
	h.Version = 0
	if err := json.Unmarshal(value, &h.line); err != nil {
		return h, err
	}
	switch h.Version {
	case formatVersion:
		return h, nil
	case 0:
		f := quipu.Function{}
		if err := json.Unmarshal(value, &f); err != nil {
			return h, err
		}
		h = newHistory(name)
		h.deploy(f, true)
		h.unsaved = true
		return h, nil
	}
	return h, newerFormat(h.Version)
}

func newerFormat(version int) error {
	return &quipu.Error{Code: quipu.CodeDataFormat, Op: "deploy.load", Text: fmt.Sprintf("a function was kept in version %d of the form, and this is %d", version, formatVersion)}
}

// edit is the history of a function, for changes.
func (c catalog) edit(name string) (*history, error) {
	h := c[name]
	if h == nil {
		return nil, noFunction(name)
	}
	c[name] = h.clone()
	return c[name], nil
}

func noFunction(name string) error {
	return &quipu.Error{Code: quipu.CodeNoFunction, Op: "function.find",
		Text: fmt.Sprintf("no function %.80q is deployed", name), Hint: quipu.Codes[quipu.CodeNoFunction].Next}
}

// deploy replaces the functions of an application, and answers them as they are remembered.
func (c catalog) deploy(app string, functions []quipu.Function, o quipu.DeployOptions) (done []quipu.Function) {
	named := map[string]bool{}
	for _, f := range functions {
		named[f.Name] = true
		h, err := c.edit(f.Name)
		if err != nil {
			h = newHistory(f.Name)
			c[f.Name] = h
		}
		done = append(done, h.deploy(f, !o.NoTraffic))
	}
	if !o.NoTraffic {
		maps.DeleteFunc(c, func(name string, h *history) bool { return h.head().App == app && !named[name] })
	}
	return done
}

// heads are the functions, by name, each at the newest revision that has traffic.
func (c catalog) heads() []quipu.Function {
	all := make([]quipu.Function, 0, len(c))
	for _, name := range slices.Sorted(maps.Keys(c)) {
		all = append(all, c[name].head())
	}
	return all
}

// deployed is the catalog for those who follow it.
func (c catalog) deployed() []Deployed {
	all := make([]Deployed, 0, len(c))
	for _, name := range slices.Sorted(maps.Keys(c)) {
		all = append(all, c[name].deployed())
	}
	return all
}

// change is the body of the view's operation. Version 1 has Set and Remove, where a function is set with all of what is
// remembered of it; it is in older records only.
type change struct {
	Version int                 `json:"version,omitempty"`
	Set     []quipu.Function    `json:"set,omitempty"`
	New     []quipu.Function    `json:"new,omitempty"`   // revisions
	Lines   map[string]line     `json:"lines,omitempty"` // that are different now
	Forget  map[string][]string `json:"forget,omitempty"`
	Remove  []string            `json:"remove,omitempty"`
}

// changeOf is how after comes from before.
func changeOf(before, after catalog) (change, error) {
	c := change{Version: formatVersion, Lines: map[string]line{}, Forget: map[string][]string{}}
	for _, name := range slices.Sorted(maps.Keys(after)) {
		h, old := after[name], before[name]
		if h == old {
			continue
		}
		if old == nil {
			old = newHistory(name)
		}
		if err := c.compare(old, h); err != nil {
			return c, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if after[name] == nil {
			c.Remove = append(c.Remove, name)
			c.Forget[name] = slices.Sorted(maps.Keys(before[name].of))
		}
	}
	return c, nil
}

// compare adds what is different about one function.
func (c *change) compare(old, now *history) error {
	a, err := json.Marshal(old.line)
	if err != nil {
		return err
	}
	b, err := json.Marshal(now.line)
	if err != nil {
		return err
	}
	if !bytes.Equal(a, b) || old.unsaved {
		c.Lines[now.name] = now.line
	}
	for _, f := range slices.Backward(now.numbers()) {
		if _, stored := old.of[f.Revision]; !stored || old.unsaved {
			c.New = append(c.New, f)
		}
	}
	for _, revision := range slices.Sorted(maps.Keys(old.of)) {
		if _, stays := now.of[revision]; !stays {
			c.Forget[now.name] = append(c.Forget[now.name], revision)
		}
	}
	return nil
}

func (c change) isEmpty() bool {
	return len(c.Set)+len(c.New)+len(c.Lines)+len(c.Forget)+len(c.Remove) == 0
}

// each visits the keys that a change writes, with their values, or nil for those that it deletes.
func (c change) each(visit func(key string, value []byte) error) error {
	if c.Version > formatVersion {
		return newerFormat(c.Version)
	}
	for name, revisions := range c.Forget {
		for _, revision := range revisions {
			if err := visit(revisionKey(name, revision), nil); err != nil {
				return err
			}
		}
	}
	for _, name := range c.Remove {
		if err := visit(functionPrefix+name, nil); err != nil {
			return err
		}
	}
	put := func(key string, v any) error {
		value, err := json.Marshal(v)
		if err != nil {
			return err
		}
		return visit(key, value)
	}
	for _, f := range c.Set {
		if err := put(functionPrefix+f.Name, f); err != nil {
			return err
		}
	}
	for _, f := range c.New {
		if err := put(revisionKey(f.Name, f.Revision), f); err != nil {
			return err
		}
	}
	for name, l := range c.Lines {
		if err := put(functionPrefix+name, l); err != nil {
			return err
		}
	}
	return nil
}
