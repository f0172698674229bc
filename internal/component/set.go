package component

import (
	"errors"
	"io"
	"maps"
	"slices"
)

// Loaded is a component that is there.
type Loaded struct {
	Spec
	// Is implements one or more of the building blocks: State and PubSub by value, others as interfaces.
	Is           any
	Capabilities []string // as metadata tells them, like ETAG
}

// Set is what one application may use, by name. It does not change; another takes its place.
type Set struct{ byName map[string]*Loaded }

// NewSet makes a set; of two components of one name the later counts.
func NewSet(all ...Loaded) *Set {
	s := &Set{byName: make(map[string]*Loaded, len(all))}
	for _, c := range all {
		if old := s.byName[c.Name]; old != nil {
			*old = c
			continue
		}
		s.byName[c.Name] = &c
	}
	return s
}

// All lists the components by name.
func (s *Set) All() []Loaded {
	if s == nil {
		return nil
	}
	all := make([]Loaded, 0, len(s.byName))
	for _, name := range slices.Sorted(maps.Keys(s.byName)) {
		all = append(all, *s.byName[name])
	}
	return all
}

// Of finds the component of a name, if it is of a building block.
func Of[Block any](s *Set, name string) (Block, bool) {
	var none Block
	if s == nil || s.byName[name] == nil {
		return none, false
	}
	is, ok := s.byName[name].Is.(Block)
	return is, ok
}

// Any tells whether there is a component of a building block.
func Any[Block any](s *Set) bool {
	for _, c := range s.All() {
		if _, ok := c.Is.(Block); ok {
			return true
		}
	}
	return false
}

// Close closes what needs it.
func (s *Set) Close() (err error) {
	for _, c := range s.All() {
		if closer, ok := c.Is.(io.Closer); ok {
			err = errors.Join(err, closer.Close())
		}
	}
	return err
}
