package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

const (
	bodyLines  = 20  // of a body that people are shown
	lineColumn = 160 // characters of each
)

// callView is all that one call did, for people.
type callView struct{ quipu.CallSlice }

func getCallView(ctx context.Context, node *sdk.Client, id string) (any, error) {
	slice, err := node.CallSlice(ctx, id)
	return callView{slice}, err
}

// print shows the slice from the request to the reply.
func (v callView) print(c *cli) error {
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	row := func(label, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", label, printable(fmt.Sprintf(format, args...)))
	}
	row("call", "%s", v.ID)
	row("function", "%s, revision %s, by %s", v.Function, v.Revision, v.Trigger)
	v.printState(row)
	v.printRequest(row)
	if v.State.Pending() {
		v.printMissing(c)
		return w.Flush()
	}
	v.printReply(row)
	row("time", "%s to %s, %s, %s", v.Start.Format(time.RFC3339Nano), v.End.Format(time.RFC3339Nano), time.Duration(v.Micros)*time.Microsecond, count(uint64(v.Runs), "run"))
	if u := v.Usage; !u.IsZero() {
		row("took", "%d ms billed, %d MB-ms, %d µs of processor, %s in, %s out, %s", u.BilledMillis, u.MemoryMBMillis, u.CPUMicros,
			count(uint64(u.BytesIn), "byte"), count(uint64(u.BytesOut), "byte"), count(uint64(u.LogAppends), "record"))
	}
	v.printRecord(row)
	if err := w.Flush(); err != nil {
		return err
	}
	v.printMissing(c)
	return nil
}

func (v callView) printMissing(c *cli) {
	if v.Missing != "" {
		c.note("%s", printable(v.Missing))
	}
}

// printState says how far a call has come that nobody waits for.
func (v callView) printState(row printRow) {
	if v.State == "" {
		return
	}
	text := fmt.Sprintf("%s, accepted %s", v.State, v.Queued.Format(time.RFC3339Nano))
	if v.Attempts > 0 {
		text += ", " + count(uint64(v.Attempts), "attempt")
	}
	if !v.Next.IsZero() {
		text += ", the next at " + v.Next.Format(time.RFC3339Nano)
	}
	row("state", "%s", text)
	if v.Execution != "" {
		row("execution", "%s", printable(v.Execution))
	}
	if v.Cause != "" {
		row("cause", "%s", v.Cause)
	}
	if v.Undelivered != "" {
		row("undelivered", "its destination could not take the event about its end: %s", v.Undelivered)
	}
}

type printRow func(label, format string, args ...any)

func (v callView) printRequest(row printRow) {
	path := v.Path
	if v.Query != "" {
		path += "?" + v.Query
	}
	row("request", "%s %s, %s", v.Method, path, count(uint64(v.Request.Size), "byte"))
	printBody(row, v.Request)
}

func (v callView) printReply(row printRow) {
	failed := ""
	if v.Error != "" {
		failed = " " + string(v.Error)
	}
	row("reply", "%d%s, %s", v.Status, failed, count(uint64(v.Reply.Size), "byte"))
	for _, name := range slices.Sorted(maps.Keys(v.Header)) {
		row("", "%s: %s", name, strings.Join(v.Header[name], ", "))
	}
	printBody(row, v.Reply)
}

// printBody shows the first lines of text.
func printBody(row printRow, b quipu.CallBody) {
	if len(b.Base64) > 0 {
		row("", "| (no text; -o json has its bytes)")
		return
	}
	n, cut := 0, b.Truncated
	for line := range strings.Lines(b.Text) {
		if n++; n > bodyLines {
			cut = true
			break
		}
		text := []rune(strings.TrimRight(line, "\r\n"))
		if len(text) > lineColumn {
			text, cut = append(text[:lineColumn], '…'), true
		}
		row("", "| %s", string(text))
	}
	if cut {
		row("", "| … (-o json has up to %d KiB)", quipu.CallBodyKept>>10)
	}
}

func (v callView) printRecord(row printRow) {
	if v.Seq != 0 {
		row("record", "%s, read at %s", v.Seq, v.Snapshot)
	}
	for _, k := range v.Read {
		row("read", "%s  %s", k.View, k.Key)
	}
	for _, r := range v.Ranges {
		row("listed", "%s  %s", r.View, spanOf(r))
	}
	for _, k := range v.Written {
		row("wrote", "%s  %s", k.View, k.Key)
	}
	for _, e := range v.Events {
		row("published", "%s  %s, %s", e.Topic, e.ID, count(uint64(e.Size), "byte"))
	}
	for _, op := range v.Ops {
		row("did", "%s  %s, %s in the record", op.View, op.Text, count(uint64(op.Size), "byte"))
	}
}

func spanOf(r quipu.CallRange) string {
	switch {
	case r.Through:
		return fmt.Sprintf("from %s through %s", r.From, r.To)
	case r.To == "":
		return "all from " + r.From
	}
	return fmt.Sprintf("from %s to before %s", r.From, r.To)
}
