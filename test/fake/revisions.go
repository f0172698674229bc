package fake

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/quipu-run/quipu"
)

func noRevision(which string) error {
	return &quipu.Error{Code: quipu.CodeNoRevision, Text: fmt.Sprintf("there is no revision %.80q", which)}
}

// Revisions has the one revision of a function.
func (n *Namespace) Revisions(name string) ([]quipu.Revision, error) {
	fn, err := n.Function(name)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return []quipu.Revision{{Function: fn, Percent: 100, Aliases: slices.Sorted(maps.Keys(n.Aliases[name])), Head: true}}, nil
}

// Split takes the whole traffic for the one revision.
func (n *Namespace) Split(_ context.Context, name string, parts []quipu.Part) ([]quipu.Revision, error) {
	list, err := n.Revisions(name)
	switch {
	case err != nil:
		return nil, err
	case len(parts) != 1 || parts[0].Percent != 100:
		return nil, &quipu.Error{Code: quipu.CodeSplit}
	case parts[0].Revision != list[0].Revision:
		return nil, noRevision(parts[0].Revision)
	}
	return list, nil
}

// Rollback goes to the one revision; there is none before it.
func (n *Namespace) Rollback(_ context.Context, name, revision string) ([]quipu.Revision, error) {
	list, err := n.Revisions(name)
	switch {
	case err != nil:
		return nil, err
	case revision == "":
		return nil, &quipu.Error{Code: quipu.CodeNoFormer}
	case revision != list[0].Revision:
		return nil, noRevision(revision)
	}
	return list, nil
}

// SetAlias is quipu.Functions.
func (n *Namespace) SetAlias(_ context.Context, name, alias, revision string) error {
	list, err := n.Revisions(name)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case revision == "" && !n.Aliases[name][alias]:
		return noRevision(alias)
	case revision == "":
		delete(n.Aliases[name], alias)
		return nil
	case revision != list[0].Revision:
		return noRevision(revision)
	}
	if n.Aliases == nil {
		n.Aliases = map[string]map[string]bool{}
	}
	if n.Aliases[name] == nil {
		n.Aliases[name] = map[string]bool{}
	}
	n.Aliases[name][alias] = true
	return nil
}
