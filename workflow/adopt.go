package workflow

import (
	"context"
	"errors"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/flow"
	"github.com/quipu-run/quipu/view"
)

// adoptMax is how many instances one record hands over at most.
const adoptMax = 100

// Adopt hands instances of an application to the runner that it has now, which were started when it had another, as one that nobody had
// deployed yet, and of which no turn was made. What came for them meanwhile is said in the new runner's language.
func (s *Store) Adopt(ctx context.Context, app string) error {
	if s.view.countOf(app, quipu.WorkflowPending) == 0 {
		return nil
	}
	kind := s.view.o.KindOf(app)
	for after := (quipu.WorkflowKey{}); ; {
		page, err := s.Workflows(ctx, quipu.WorkflowList{App: app, Status: quipu.WorkflowPending, After: after, Limit: adoptMax})
		if err != nil {
			return err
		}
		var strangers []quipu.WorkflowKey
		for _, i := range page.Workflows {
			if i.Kind != kind {
				strangers = append(strangers, i.WorkflowKey)
			}
		}
		if len(strangers) > 0 {
			if err := s.adopt(ctx, strangers, kind); err != nil {
				return err
			}
		}
		if page.Next == nil {
			return nil
		}
		after = *page.Next
	}
}

func (s *Store) adopt(ctx context.Context, keys []quipu.WorkflowKey, kind string) error {
	_, err := s.book.Change(ctx, func(tx *view.Tx) error {
		for _, k := range keys {
			if err := s.view.adopt(tx, k, kind); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// adopt hands one instance over, unless it is gone, has begun, or belongs to another instance, which would not understand its answer.
func (v *View) adopt(tx *view.Tx, k quipu.WorkflowKey, kind string) error {
	i, err := v.instance(tx, k)
	if quipu.CodeOf(err) == quipu.CodeNoWorkflow {
		return nil
	}
	if err != nil || i.Kind == kind || i.Status != quipu.WorkflowPending || i.Events > 0 || i.First > 0 || i.Parent != nil {
		return err
	}
	from, known := v.o.Languages[i.Kind].(flow.Translator)
	to, err := v.language(kind)
	if err != nil || !known {
		return err
	}
	inbox, err := v.inbox(tx, i)
	if err != nil {
		return err
	}
	start := &flow.Start{Kind: kind, Name: i.Name, Version: i.Version, Input: i.Input, At: i.Start,
		Messages: [][]byte{to.Begin(quipu.WorkflowStart{WorkflowKey: k, Name: i.Name, Version: i.Version, Input: i.Input, At: i.Start}, i.Created)}}
	for _, m := range inbox {
		said, err := from.Retold(m, to)
		if err != nil {
			return errors.Join(errForm, err)
		}
		if said != nil {
			start.Messages = append(start.Messages, said)
		}
	}
	return v.Change(tx, []flow.Change{{WorkflowKey: k, Purge: true, Force: true}, {WorkflowKey: k, Start: start}})
}
