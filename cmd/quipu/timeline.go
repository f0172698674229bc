package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/trace"
	"github.com/quipu-run/quipu/sdk"
)

// traceRequest has the headers of a request whose trace the node is to remember, and answers the trace's id.
func traceRequest(h http.Header) (id string) {
	parent := trace.NewTraceparent()
	h.Set(quipu.HeaderTraceparent, parent)
	h.Set(quipu.HeaderTrace, quipu.TraceKeep)
	return trace.TraceIDOf(parent)
}

// noteTrace prints the timeline of a call for people: to stderr, since stdout has the reply.
func (c *cli) noteTrace(cmd *cobra.Command, node *sdk.Client, id string) error {
	t, err := node.Trace(cmd.Context(), id)
	if err != nil {
		return err
	}
	to := *c
	to.out = c.err
	return to.showTrace(t)
}

// showTrace prints a trace in the form that was asked for.
func (c *cli) showTrace(t quipu.Trace) error {
	if c.output != "table" {
		return c.show(t)
	}
	return timeline{t}.print(c.out)
}

// Limits of a timeline that people read.
const (
	barColumns   = 24
	labelColumns = 48
	detailMax    = 120
)

// timeline is a trace as a waterfall: one line for each span, below its parent, with a bar where it lies in the whole.
type timeline struct{ quipu.Trace }

func (t timeline) print(to io.Writer) error {
	fmt.Fprintf(to, "trace %s\n", t.ID)
	if len(t.Spans) > 0 {
		start, end := t.bounds()
		w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "OFFSET\tTIME\t\tWHAT\tDETAILS")
		for _, line := range t.lines() {
			s := line.span
			label := []rune(strings.Repeat("  ", line.depth) + printable(s.Name))
			if len(label) > labelColumns {
				label = append(label[:labelColumns-1], '…')
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", short(s.Start.Sub(start)), short(time.Duration(s.Nanos)), bar(s, start, end), string(label), printable(details(s)))
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if t.Open > 0 {
		fmt.Fprintf(to, "%d more have begun and not ended\n", t.Open)
	}
	if t.Dropped > 0 {
		fmt.Fprintf(to, "%d more were too many to be remembered\n", t.Dropped)
	}
	return nil
}

// bounds are the first start and the last end.
func (t timeline) bounds() (start, end time.Time) {
	for i, s := range t.Spans {
		over := s.Start.Add(time.Duration(s.Nanos))
		if i == 0 || s.Start.Before(start) {
			start = s.Start
		}
		if i == 0 || over.After(end) {
			end = over
		}
	}
	return start, end
}

// spanLine is a span at its depth in the tree.
type spanLine struct {
	span  quipu.TraceSpan
	depth int
}

// lines are the spans as a tree: children follow their parent, by their start. One whose parent is not here is a root.
func (t timeline) lines() (all []spanLine) {
	here, children := map[string]bool{}, map[string][]quipu.TraceSpan{}
	for _, s := range t.Spans {
		here[s.ID] = true
	}
	for _, s := range t.Spans { // which are by start
		if parent := s.Parent; here[parent] {
			children[parent] = append(children[parent], s)
		} else {
			children[""] = append(children[""], s)
		}
	}
	var visit func(parent string, depth int)
	visit = func(parent string, depth int) {
		list := children[parent]
		delete(children, parent) // each once, whatever the ids say
		for _, s := range list {
			all = append(all, spanLine{s, depth})
			visit(s.ID, depth+1)
		}
	}
	visit("", 0)
	return all
}

// bar shows where a span lies between start and end.
func bar(s quipu.TraceSpan, start, end time.Time) string {
	whole := max(1, end.Sub(start))
	from := int(int64(s.Start.Sub(start)) * barColumns / int64(whole))
	to := int((int64(s.Start.Sub(start)) + s.Nanos) * barColumns / int64(whole))
	from = min(max(from, 0), barColumns-1)
	to = min(max(to, from+1), barColumns)
	return strings.Repeat("·", from) + strings.Repeat("█", to-from) + strings.Repeat("·", barColumns-to)
}

// short is a duration in three digits or so.
func short(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}

// shown attributes, and what people call them.
var shownAttributes = []struct{ key, name string }{
	{"quipu.keys", ""}, {"db.operation.batch.size", "changes"}, {"messaging.message.id", "event"}, {"messaging.batch.message_count", "events"},
	{"http.response.status_code", "status"}, {"faas.coldstart", "cold"}, {"quipu.instance", ""}, {"faas.version", "revision"}, {"quipu.trigger", "by"},
	{"quipu.attempt", "attempt"}, {"quipu.runs", "runs"}, {"quipu.reads", "reads"}, {"quipu.operations", "writes"}, {"quipu.seq", "record"},
	{"quipu.log.commit.appends", "appends"}, {"quipu.log.commit.bytes", "bytes"},
}

// details are the attributes that people want to see.
func details(s quipu.TraceSpan) string {
	var parts []string
	if s.Error != "" {
		parts = append(parts, "failed: "+s.Error)
	}
	for _, a := range shownAttributes {
		value, ok := s.Attributes[a.key]
		plain := a.key == "quipu.attempt" && value == "1" || a.key == "faas.coldstart" && value == "false" || value == ""
		if !ok || plain {
			continue
		}
		if a.name != "" {
			value = a.name + "=" + value
		}
		parts = append(parts, value)
	}
	text := []rune(strings.Join(parts, " "))
	if len(text) > detailMax {
		text = append(text[:detailMax-1], '…')
	}
	return string(text)
}
