package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

func readFlags(cmd *cobra.Command) *sdk.ReadRequest {
	r := &sdk.ReadRequest{}
	cmd.Flags().StringVar(&r.Tag, "tag", "", "only records with this tag")
	cmd.Flags().StringVar(&r.From, "from", "", "the first seq wanted")
	cmd.Flags().StringVar(&r.As, "as", "", "with -o json or yaml, how data is written: base64 (default), text or json")
	return r
}

func (c *cli) logRead() *cobra.Command {
	var r *sdk.ReadRequest
	var onlyData bool
	cmd := c.aboutBook("read BOOK", "Print records of a book", func(cmd *cobra.Command, node *sdk.Client, book string) error {
		page, err := node.ReadBook(cmd.Context(), book, *r)
		if err != nil {
			return err
		}
		if page.Next != "" {
			c.note("there are more: %s %s", map[bool]string{false: "--from", true: "--to"}[r.Reverse], page.Next)
		}
		if onlyData {
			return c.printData(page.Items)
		}
		return c.list(tableOf("SEQ\tKIND\tTIME\tTAGS\tDATA", page.Items, recordRow))
	})
	r = readFlags(cmd)
	cmd.Flags().StringVar(&r.To, "to", "", "the last seq wanted")
	cmd.Flags().IntVar(&r.Limit, "limit", 1000, "at most so many, up to 1000")
	cmd.Flags().BoolVar(&r.Reverse, "reverse", false, "the newest first")
	cmd.Flags().DurationVar(&r.Wait, "wait", 0, "if there is no record, wait so long for one; up to a minute")
	cmd.Flags().BoolVar(&onlyData, "data", false, "print only the data, as it is, each with a line end")
	return cmd
}

func (c *cli) printData(records []sdk.Record) error {
	for _, r := range records {
		if _, err := c.out.Write(append(slices.Clone(r.Bytes()), '\n')); err != nil {
			return err
		}
	}
	return nil
}

func recordRow(r sdk.Record) []any {
	const most = 60
	data := string(r.Bytes())
	if len(data) > most {
		data = fmt.Sprintf("%s… (%d bytes)", strings.ToValidUTF8(data[:most], ""), len(data))
	}
	return []any{r.Seq, r.Kind, r.Time.Format(time.RFC3339), strings.Join(r.Tags, ","), strings.ToValidUTF8(data, "·")}
}

// tailArgs is the command line of tail.
type tailArgs struct {
	*sdk.ReadRequest
	follow bool
	last   int
	limit  int
}

func (c *cli) logTail() *cobra.Command {
	t := &tailArgs{}
	cmd := c.aboutBook("tail BOOK [-f]", "Print the newest records of a book, and with -f what comes", func(cmd *cobra.Command, node *sdk.Client, book string) error {
		if t.last < 0 || t.last > 1000 || t.limit < 0 {
			return usage("--last is %d and --limit %d; they must be 0 or more, --last up to 1000", t.last, t.limit)
		}
		return c.tail(cmd.Context(), node, book, *t)
	})
	t.ReadRequest = readFlags(cmd)
	cmd.Flags().BoolVarP(&t.follow, "follow", "f", false, "go on with new records")
	cmd.Flags().IntVar(&t.last, "last", 10, "how many of the newest, without --from")
	cmd.Flags().IntVar(&t.limit, "limit", 0, "end after so many; 0 means never")
	return cmd
}

// tail prints what is there as of one tail, and follows from it, so that nothing is missed or shown twice.
func (c *cli) tail(ctx context.Context, node *sdk.Client, book string, t tailArgs) error {
	info, err := node.Book(ctx, book)
	if err != nil {
		return err
	}
	left := t.limit
	if left == 0 {
		left = -1
	}
	if !t.follow || t.From == "" {
		r := *t.ReadRequest
		r.To = info.Tail.String()
		if left, err = c.printPages(ctx, node, book, r, t.last, left); err != nil || left == 0 || !t.follow {
			return err
		}
		t.From = (info.Tail + 1).String()
	}
	for rec, err := range node.TailBook(ctx, book, *t.ReadRequest) {
		if err == nil {
			err = c.printRecord(rec)
		}
		if err != nil {
			return err
		}
		if left--; left == 0 {
			return nil
		}
	}
	return nil
}

// printPages prints the last records, or all if the request says where to begin, but at most left of them unless that
// is negative. It answers what is left.
func (c *cli) printPages(ctx context.Context, node *sdk.Client, book string, r sdk.ReadRequest, last, left int) (int, error) {
	newest := r.From == ""
	if newest && last == 0 {
		return left, nil
	}
	if newest {
		r.Reverse, r.Limit = true, last
	}
	for {
		page, err := node.ReadBook(ctx, book, r)
		if newest && quipu.CodeOf(err) == quipu.CodeTrimmed {
			return left, nil // all of it was
		}
		if err != nil {
			return left, err
		}
		if newest {
			slices.Reverse(page.Items)
		}
		for _, rec := range page.Items {
			if left == 0 {
				return 0, nil
			}
			left--
			if err := c.printRecord(rec); err != nil {
				return left, err
			}
		}
		if r.From = page.Next; newest || page.Next == "" {
			return left, nil
		}
	}
}

func (c *cli) printRecord(rec sdk.Record) error {
	if c.output != "table" {
		out := json.NewEncoder(c.out)
		out.SetEscapeHTML(false)
		return out.Encode(rec)
	}
	_, err := fmt.Fprintln(c.out, printable(strings.TrimSuffix(fmt.Sprintln(recordRow(rec)...), "\n")))
	return err
}
