package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/cloudevent"
	"github.com/quipu-run/quipu/sdk"
)

const (
	batchLines = 500     // of --lines in one request, if so many wait
	batchBytes = 4 << 20 // of them, or one line more
)

// pubArgs is the command line of pub.
type pubArgs struct {
	sdk.Publication
	topic      string
	file       string // "-" for stdin
	lines      bool
	extensions []string
}

func (c *cli) pubCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "pub TOPIC [-d DATA | -f FILE | -]", Short: "Publish an event, or one for each line, and print its id", SuggestFor: []string{"publish"},
		Args: cobra.RangeArgs(1, 2), ValidArgsFunction: c.completeTopics}
	p := &pubArgs{}
	f := cmd.Flags()
	data := f.StringP("data", "d", "", "the event's data")
	f.StringVarP(&p.file, "file", "f", "", "a file with the data, - for stdin")
	f.BoolVar(&p.lines, "lines", false, "publish each line of the file, or of stdin, as an event; blank lines are left out")
	f.StringVar(&p.ID, "id", "", "id of the event; default: a new one")
	f.StringVar(&p.Type, "type", "", "type of the event")
	f.StringVar(&p.Source, "source", "", "source of the event")
	f.StringVar(&p.Subject, "subject", "", "subject of the event")
	f.StringArrayVar(&p.extensions, "extension", nil, "name=value, another attribute of the event")
	f.StringVar(&p.ContentType, "content-type", "", "of the data; default: JSON if it is, else text, else bytes; "+quipu.MediaCloudEvent+" for a whole event")
	f.TextVar((*quipu.Duration)(&p.TTL), "ttl", quipu.Duration(0), "duration after which it is not delivered any more")
	f.TextVar((*quipu.Duration)(&p.Delay), "delay", quipu.Duration(0), "duration before which it is not delivered; quipu topics cancel takes it back")
	f.BoolVar(&p.Raw, "raw", false, "publish the data without an envelope")
	cmd.MarkFlagsMutuallyExclusive("data", "file")
	cmd.MarkFlagsMutuallyExclusive("data", "lines")
	cmd.MarkFlagsMutuallyExclusive("id", "lines")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		p.Data = []byte(*data)
		if err := p.check(args, f.Changed("data")); err != nil {
			return err
		}
		return c.pub(cmd.Context(), p)
	}
	return cmd
}

// check finds out where the data is.
func (p *pubArgs) check(args []string, hasData bool) error {
	p.topic = args[0]
	if len(args) == 2 {
		if args[1] != "-" || hasData || p.file != "" {
			return usage("data is given as -d DATA, -f FILE or -, not as %q", args[1])
		}
		p.file = "-"
	}
	if p.lines && p.file == "" {
		p.file = "-"
	}
	if !hasData && p.file == "" {
		return &quipu.Error{Code: quipu.CodeUsage, Text: "there is nothing to publish", Hint: "give -d DATA, -f FILE, - for stdin, or --lines"}
	}
	p.Extensions = map[string]string{}
	for _, text := range p.extensions {
		name, value, ok := strings.Cut(text, "=")
		if !ok {
			return usage("--extension is %q; it must be name=value", text)
		}
		p.Extensions[name] = value
	}
	return nil
}

func (c *cli) pub(ctx context.Context, p *pubArgs) error {
	node, err := c.client()
	if err != nil {
		return err
	}
	if p.lines {
		return c.pubLines(ctx, node, p)
	}
	if p.Data, err = c.input(p.Data, p.file); err != nil {
		return err
	}
	if p.ContentType == "" {
		p.ContentType = contentTypeOf(p.Data)
	}
	return c.slow("publishing", func() error {
		id, err := node.Publish(ctx, p.topic, p.Publication)
		if err != nil {
			return err
		}
		return c.printID(id)
	})
}

func contentTypeOf(data []byte) string {
	switch {
	case json.Valid(data):
		return "application/json"
	case utf8.Valid(data):
		return "text/plain; charset=utf-8"
	}
	return "application/octet-stream"
}

func (c *cli) printID(id string) error {
	if c.output != "table" {
		return json.NewEncoder(c.out).Encode(sdk.Published{ID: id})
	}
	_, err := fmt.Fprintln(c.out, printable(id))
	return err
}

// pubLines publishes what waits, as one batch, and then what came meanwhile: a file goes in large pieces, and a
// pipe line by line. Lines are published in order, so that of a failure it is enough to say how many were.
func (c *cli) pubLines(ctx context.Context, node *sdk.Client, p *pubArgs) error {
	in := c.in
	if p.file != "-" {
		file, err := os.Open(p.file)
		if err != nil {
			return err
		}
		defer file.Close()
		in = file
	}
	lines, ended := linesOf(ctx, in, lineForm{most: quipu.EventBytesMax, code: quipu.CodeEventSize, what: "published"})
	for done := 0; ; {
		batch := takeLines(ctx, lines)
		if len(batch) == 0 {
			break
		}
		n, err := c.pubBatch(ctx, node, p, batch)
		if done += n; err != nil {
			c.note("published before that: %s", count(uint64(done), "line"))
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return <-ended
}

// lineForm says what lines are taken.
type lineForm struct {
	most   int        // bytes of one
	code   quipu.Code // of one that has more
	what   string     // happens to those before it
	blanks bool       // blank ones too
}

// linesOf reads lines until the end or an error, which comes last. If ctx ends, the reader is left behind: nothing
// wakes a read of a terminal, and the process is about to exit.
func linesOf(ctx context.Context, in io.Reader, form lineForm) (<-chan []byte, <-chan error) {
	lines, ended := make(chan []byte, batchLines), make(chan error, 1)
	go func() {
		defer close(lines)
		scan := bufio.NewScanner(in)
		scan.Buffer(nil, form.most)
		n := 0
		for ; scan.Scan(); n++ {
			line := bytes.Clone(scan.Bytes())
			if !form.blanks && len(bytes.TrimSpace(line)) == 0 {
				continue
			}
			select {
			case lines <- line:
			case <-ctx.Done():
				return
			}
		}
		err := scan.Err()
		if errors.Is(err, bufio.ErrTooLong) {
			err = &quipu.Error{Code: form.code, Text: fmt.Sprintf("line %d has more than %d bytes; those before are %s", n+1, form.most, form.what)}
		}
		ended <- err
	}()
	return lines, ended
}

// takeLines waits for one line and takes what else is there.
func takeLines(ctx context.Context, lines <-chan []byte) (batch [][]byte) {
	var size int
	select {
	case line, ok := <-lines:
		if !ok {
			return nil
		}
		batch, size = append(batch, line), len(line)
	case <-ctx.Done():
		return nil
	}
	for len(batch) < batchLines && size < batchBytes {
		select {
		case line, ok := <-lines:
			if !ok {
				return batch
			}
			batch, size = append(batch, line), size+len(line)
		default:
			return batch
		}
	}
	return batch
}

// pubBatch answers how many lines were published: all or none, unless they are raw.
func (c *cli) pubBatch(ctx context.Context, node *sdk.Client, p *pubArgs, lines [][]byte) (int, error) {
	if p.Raw {
		return c.pubRaw(ctx, node, p, lines)
	}
	events := make([]json.RawMessage, len(lines))
	for i, line := range lines {
		event, err := p.envelope(line)
		if err != nil {
			return 0, err
		}
		events[i] = event
	}
	ids, err := node.PublishBatch(ctx, p.topic, events, sdk.Publication{TTL: p.TTL, Delay: p.Delay})
	for _, id := range ids {
		if err := c.printID(id); err != nil {
			return len(ids), err
		}
	}
	return len(ids), err
}

// pubRaw goes one by one: a batch is of events with an envelope.
func (c *cli) pubRaw(ctx context.Context, node *sdk.Client, p *pubArgs, lines [][]byte) (int, error) {
	one := p.Publication
	for n, line := range lines {
		if one.Data = line; p.ContentType == "" {
			one.ContentType = contentTypeOf(line)
		}
		id, err := node.Publish(ctx, p.topic, one)
		if err == nil {
			err = c.printID(id)
		}
		if err != nil {
			return n, err
		}
	}
	return len(lines), nil
}

// envelope makes a line an event, but for what the node adds.
func (p *pubArgs) envelope(line []byte) (json.RawMessage, error) {
	kind := p.ContentType
	if kind == "" {
		kind = contentTypeOf(line)
	}
	if (cloudevent.IsJSON(kind) || cloudevent.IsCloudEvent(kind)) && !json.Valid(line) {
		return nil, &quipu.Error{Code: quipu.CodeBadJSON, Text: fmt.Sprintf("the line %.60q is not %s", line, kind), Hint: "leave --content-type out, or mend the line"}
	}
	attributes := cloudevent.Attributes{DataContentType: kind, Type: p.Type, Source: p.Source, Subject: p.Subject, Extensions: p.Extensions}
	envelope := cloudevent.Wrap
	if cloudevent.IsCloudEvent(kind) {
		envelope = cloudevent.Complete
	}
	_, event, err := envelope(attributes, line)
	return event, err
}
