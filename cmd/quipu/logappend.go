package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// lineBytesMax is the longest line that append --lines takes for a record.
const lineBytesMax = 4 << 20

// appendArgs is the command line of append.
type appendArgs struct {
	book   string
	data   []byte
	file   string // "-" for stdin
	lines  bool
	tags   []string
	ifLast string
}

func (c *cli) logAppend() *cobra.Command {
	a := &appendArgs{}
	cmd := &cobra.Command{Use: "append BOOK [DATA | -f FILE | -]", Short: "Append a record, or one for each line, and print its seq when it is durable",
		Args: cobra.RangeArgs(1, 2), ValidArgsFunction: c.completeBooks}
	f := cmd.Flags()
	f.StringVarP(&a.file, "file", "f", "", "a file with the data, - for stdin")
	f.BoolVar(&a.lines, "lines", false, "append each line of the file, or of stdin, as a record; what waits goes together")
	f.StringArrayVar(&a.tags, "tag", nil, "a tag of the record; up to 32")
	f.StringVar(&a.ifLast, "if-last", "", "TAG=SEQ: only if the newest record with the tag has this seq; TAG=0: if there is none")
	cmd.MarkFlagsMutuallyExclusive("lines", "if-last")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := a.check(args); err != nil {
			return err
		}
		node, err := c.client()
		if err != nil {
			return err
		}
		if a.lines {
			return bookHint(c.appendLines(cmd.Context(), node, a), a.book)
		}
		return bookHint(c.appendOne(cmd.Context(), node, a), a.book)
	}
	return cmd
}

// check finds out where the data is.
func (a *appendArgs) check(args []string) error {
	a.book = args[0]
	if len(args) == 2 && a.file != "" || len(args) == 2 && a.lines && args[1] != "-" {
		return usage("data is given as an argument or as -f FILE, not as both; lines come from a file")
	}
	switch {
	case len(args) == 2 && args[1] == "-", a.lines && a.file == "":
		a.file = "-"
	case len(args) == 2:
		a.data = []byte(args[1])
	case a.file == "":
		return &quipu.Error{Code: quipu.CodeUsage, Text: "there is nothing to append", Hint: "give DATA, -f FILE, - for stdin, or --lines"}
	}
	return nil
}

// cond reads TAG=SEQ; a tag may have =.
func (a *appendArgs) cond() (*quipu.Cond, error) {
	if a.ifLast == "" {
		return nil, nil
	}
	i := strings.LastIndexByte(a.ifLast, '=')
	if i < 0 {
		return nil, usage("--if-last is %q; it must be TAG=SEQ, or TAG=0 if there is to be none", a.ifLast)
	}
	last, err := quipu.ParseSeq(a.ifLast[i+1:])
	return &quipu.Cond{Tag: a.ifLast[:i], Last: last}, err
}

func (c *cli) appendOne(ctx context.Context, node *sdk.Client, a *appendArgs) error {
	cond, err := a.cond()
	if err != nil {
		return err
	}
	data, err := c.input(a.data, a.file)
	if err != nil {
		return err
	}
	return c.slow("appending", func() error {
		seq, err := node.AppendRecord(ctx, a.book, quipu.Draft{Tags: a.tags, Data: data, Cond: cond})
		if err != nil {
			return err
		}
		return c.printSeq(seq)
	})
}

func (c *cli) printSeq(seq quipu.Seq) error {
	if c.output != "table" {
		return json.NewEncoder(c.out).Encode(sdk.Appended{Seq: seq})
	}
	_, err := fmt.Fprintln(c.out, seq)
	return err
}

// appendLines appends what waits, as one batch, while the next lines are read: a file goes in large pieces, and a pipe
// line by line. Batches go one after the other, so that of a failure it is enough to say how many lines are in.
func (c *cli) appendLines(ctx context.Context, node *sdk.Client, a *appendArgs) error {
	in := c.in
	if a.file != "-" {
		file, err := os.Open(a.file)
		if err != nil {
			return err
		}
		defer file.Close()
		in = file
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // and with it the reader
	lines, ended := linesOf(ctx, in, lineForm{most: lineBytesMax, code: quipu.CodeRecord, what: "appended", blanks: true})
	done, tell := 0, c.progress()
	for {
		batch := takeLines(ctx, lines)
		if len(batch) == 0 {
			break
		}
		if err := c.appendBatch(ctx, node, a, batch); err != nil {
			c.note("appended before that: %s", count(uint64(done), "line"))
			return err
		}
		done += len(batch)
		tell("appended %s", count(uint64(done), "line"))
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return <-ended
}

func (c *cli) appendBatch(ctx context.Context, node *sdk.Client, a *appendArgs, lines [][]byte) error {
	drafts := make([]quipu.Draft, len(lines))
	for i, line := range lines {
		drafts[i] = quipu.Draft{Tags: a.tags, Data: line}
	}
	seqs, err := node.AppendBatch(ctx, a.book, drafts)
	if err != nil {
		return err
	}
	for _, seq := range seqs {
		if err := c.printSeq(seq); err != nil {
			return err
		}
	}
	return nil
}
