package workflow

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/flow"
	"github.com/quipu-run/quipu/view"
)

// head reads the head of an instance. CodeNoWorkflow.
func (v *View) head(tx *view.Tx, k quipu.WorkflowKey) (head, error) {
	value, ok, err := tx.Get(Name, byHead+name(k))
	if err != nil {
		return head{}, err
	}
	if !ok {
		return head{}, fault(quipu.CodeNoWorkflow, fmt.Sprintf("there is no instance %s of %s", k.ID, k.App))
	}
	return decodeHead(value)
}

func (v *View) instance(tx *view.Tx, k quipu.WorkflowKey) (flow.Instance, error) {
	h, err := v.head(tx, k)
	if err != nil {
		return flow.Instance{}, err
	}
	i, err := v.described(tx, k, h)
	if err != nil {
		return i, err
	}
	n := name(k)
	if i.Input, _, err = tx.Get(Name, byInput+n); err != nil {
		return i, err
	}
	if !h.status.Ended() {
		return i, nil
	}
	value, _, err := tx.Get(Name, byResult+n)
	if err == nil {
		i.Output, i.Failure, err = decodeResult(value)
	}
	return i, err
}

// described is an instance without its payloads, but for the custom status.
func (v *View) described(tx *view.Tx, k quipu.WorkflowKey, h head) (flow.Instance, error) {
	value, _, err := tx.Get(Name, byStatic+name(k))
	if err != nil {
		return flow.Instance{}, err
	}
	var s static
	if err := json.Unmarshal(value, &s); err != nil {
		return flow.Instance{}, fmt.Errorf("workflow %s of %s: %w", k.ID, k.App, err)
	}
	i := flow.Instance{WorkflowKey: k, Kind: h.kind, Name: s.Name, Version: h.version, Status: h.status, Created: instant(s.Created),
		Updated: instant(h.updated), Ended: instant(h.ended), Start: instant(s.Start), Parent: s.Parent, Rev: h.rev, Generation: h.generation,
		Events: h.events, First: h.first, Next: h.next, Open: h.open}
	if h.custom {
		value, _, err = tx.Get(Name, byCustom+name(k))
		i.Custom = string(value)
	}
	return i, err
}

func (v *View) load(tx *view.Tx, k quipu.WorkflowKey) (s flow.Snapshot, err error) {
	if s.Instance, err = v.instance(tx, k); err != nil {
		return s, err
	}
	n := name(k)
	var bad error
	from := partKey(n, s.Generation, 0)
	err = tx.Peek(Name, from, partKey(n, s.Generation+1, 0), func(_ string, value []byte) bool {
		r := reader{rest: append([]byte(nil), value...)}
		s.History = append(s.History, r.list()...)
		bad = r.done()
		return bad == nil
	})
	if err = errors.Join(err, bad); err != nil {
		return s, fmt.Errorf("history of workflow %s of %s: %w", k.ID, k.App, err)
	}
	s.Inbox, err = v.inbox(tx, s.Instance)
	return s, err
}

func (v *View) inbox(tx *view.Tx, i flow.Instance) (list [][]byte, err error) {
	if i.First == i.Next {
		return nil, nil
	}
	n := name(i.WorkflowKey)
	err = tx.Peek(Name, messageKey(n, i.First), messageKey(n, i.Next), func(_ string, value []byte) bool {
		list = append(list, append([]byte(nil), value...))
		return true
	})
	return list, err
}

// List answers a page of instances, by application and id.
func (v *View) List(tx *view.Tx, l quipu.WorkflowList) (page quipu.WorkflowPage, err error) {
	limit := l.Limit
	if limit <= 0 || limit > quipu.WorkflowsListMax {
		limit = quipu.WorkflowsListMax
	}
	from, to := byHead, view.After(byHead)
	if l.App != "" {
		from, to = byHead+l.App+"\x00", byHead+l.App+"\x01"
	}
	if l.After.App != "" {
		from = max(from, byHead+name(l.After)+"\x00")
	}
	var bad error
	page.Workflows = []quipu.WorkflowInfo{}
	var last quipu.WorkflowKey
	err = tx.Peek(Name, from, to, func(key string, value []byte) bool {
		k, _ := parseName(strings.TrimPrefix(key, byHead))
		var h head
		if h, bad = decodeHead(value); bad != nil {
			return false
		}
		if l.Status != "" && h.status != l.Status {
			return true
		}
		if len(page.Workflows) == limit {
			page.Next = &last
			return false
		}
		last = k
		page.Workflows = append(page.Workflows, quipu.WorkflowInfo{WorkflowKey: k})
		return true
	})
	if err = errors.Join(err, bad); err != nil {
		return page, err
	}
	return v.fill(tx, l, page)
}

// fill completes a page. What has another name than is asked for is left out, so a page may be short with others to follow.
func (v *View) fill(tx *view.Tx, l quipu.WorkflowList, page quipu.WorkflowPage) (quipu.WorkflowPage, error) {
	kept := page.Workflows[:0]
	for _, w := range page.Workflows {
		h, err := v.head(tx, w.WorkflowKey)
		if err != nil {
			return page, err
		}
		i, err := v.described(tx, w.WorkflowKey, h)
		if err != nil {
			return page, err
		}
		if l.Name == "" || i.Name == l.Name {
			kept = append(kept, info(i))
		}
	}
	page.Workflows = kept
	return page, nil
}

func info(i flow.Instance) quipu.WorkflowInfo {
	return quipu.WorkflowInfo{WorkflowKey: i.WorkflowKey, Name: i.Name, Version: i.Version, Kind: i.Kind, Status: i.Status, Created: i.Created,
		Updated: i.Updated, Ended: i.Ended, Generation: int(i.Generation), Events: int(i.Events), Inbox: int(i.Next - i.First), Parent: i.Parent, Custom: i.Custom}
}
