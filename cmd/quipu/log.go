package main

import (
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

func (c *cli) logCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "log", Short: "The log itself: books and their records"}
	cmd.AddCommand(
		&cobra.Command{Use: "ls", Short: "List books", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return c.listKind(cmd.Context(), "books") }},
		c.logCreate(), c.logGet(), c.logSet(), c.logRemove(), c.logAppend(), c.logRead(), c.logTail(), c.logTrim(),
		c.logVerify(), c.logStats(), c.logExport(), c.logImport())
	return cmd
}

const bookHead = "NAME\tRECORDS\tBYTES\tTAIL\tTRIM\tMAX AGE\tMAX BYTES\tQUOTA\tSYNC"

func bookRow(b sdk.Book) []any {
	return []any{b.Name, b.Records, b.Bytes, b.Tail, b.Trim, unless(b.Options.MaxAge == 0, days(b.Options.MaxAge)),
		unless(b.Options.MaxBytes == 0, sizeText(b.Options.MaxBytes)), unless(b.Options.Quota == 0, sizeText(b.Options.Quota)), b.Sync}
}

func unless(none bool, text string) string {
	if none {
		return "-"
	}
	return text
}

func sizeText(s quipu.Size) string {
	text, err := s.MarshalText()
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// aboutBook is a command on one book, whose name is completed.
func (c *cli) aboutBook(use, short string, do func(cmd *cobra.Command, node *sdk.Client, book string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: cobra.ExactArgs(1), ValidArgsFunction: c.completeBooks, RunE: func(cmd *cobra.Command, args []string) error {
		node, err := c.client()
		if err == nil {
			err = do(cmd, node, args[0])
		}
		return bookHint(err, args[0])
	}}
}

// bookHint makes an error about a book say what to type next.
func bookHint(err error, book string) error {
	var e *quipu.Error
	if !errors.As(err, &e) {
		return err
	}
	told := *e
	switch name := shellWord(book); e.Code {
	case quipu.CodeNoBook:
		told.Hint = fmt.Sprintf("make it:          quipu log create %s\nor see the rest:  quipu log ls", name)
	case quipu.CodeBookExists:
		told.Hint = "look at it:       quipu log get " + name
	case quipu.CodeTrimmed:
		told.Hint = fmt.Sprintf("read on with      --from %s", e.Seq+1)
	case quipu.CodeQuota:
		told.Hint = fmt.Sprintf("make room:        quipu log trim %s --upto SEQ\nor allow more:    quipu log set %s --quota SIZE", name, name)
	case quipu.CodeConflict:
		told.Hint = fmt.Sprintf("the newest is     %s\nlook at it:       quipu log read %s --from %s --limit 1", e.Seq, name, e.Seq)
	default:
		return err
	}
	return &told
}

// shellWord is text as a shell takes it for one word.
func shellWord(text string) string {
	for _, r := range text {
		if r <= ' ' || r > '~' || !isPlain(r) {
			return fmt.Sprintf("%q", text)
		}
	}
	return text
}

func isPlain(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.' || r == '/' || r == '@' || r == ':'
}

// optionFlags are the options of a book as flags; change has those that were given.
func optionFlags(cmd *cobra.Command) (change func() sdk.OptionsChange) {
	o := &sdk.BookOptions{}
	f := cmd.Flags()
	f.TextVar(&o.MaxAge, "max-age", quipu.Duration(0), "trim records older than that: 12h, 7d; 0 for no bound")
	f.TextVar(&o.MaxBytes, "max-bytes", quipu.Size(0), "trim the oldest records while the book has more: 512MiB, 1GiB; 0 for no bound")
	f.TextVar(&o.Quota, "quota", quipu.Size(0), "refuse what would give the book more; 0 for no bound")
	return func() (change sdk.OptionsChange) {
		if f.Changed("max-age") {
			change.MaxAge = &o.MaxAge
		}
		if f.Changed("max-bytes") {
			change.MaxBytes = &o.MaxBytes
		}
		if f.Changed("quota") {
			change.Quota = &o.Quota
		}
		return change
	}
}

func (c *cli) logCreate() *cobra.Command {
	var options func() sdk.OptionsChange
	cmd := c.aboutBook("create BOOK", "Make a book", func(cmd *cobra.Command, node *sdk.Client, book string) error {
		made, err := node.CreateBook(cmd.Context(), book, options().In(sdk.BookOptions{}).Contract())
		if err != nil {
			return err
		}
		return c.showBook(made)
	})
	cmd.ValidArgsFunction = cobra.NoFileCompletions // a new name
	options = optionFlags(cmd)
	return cmd
}

func (c *cli) showBook(b sdk.Book) error {
	if c.output != "table" {
		return c.show(b)
	}
	return c.list(tableOf(bookHead, []sdk.Book{b}, bookRow))
}

func (c *cli) logGet() *cobra.Command {
	return c.aboutBook("get BOOK", "Show one book", func(cmd *cobra.Command, node *sdk.Client, book string) error {
		b, err := node.Book(cmd.Context(), book)
		if err != nil {
			return err
		}
		return c.showOne(b)
	})
}

func (c *cli) logSet() *cobra.Command {
	var options func() sdk.OptionsChange
	cmd := c.aboutBook("set BOOK", "Change the options of a book that are given", func(cmd *cobra.Command, node *sdk.Client, book string) error {
		change := options()
		if change == (sdk.OptionsChange{}) {
			return &quipu.Error{Code: quipu.CodeUsage, Text: "there is nothing to change", Hint: "give --max-age, --max-bytes or --quota"}
		}
		if change.MaxAge != nil && *change.MaxAge > 0 || change.MaxBytes != nil && *change.MaxBytes > 0 {
			if err := c.sure("trim what is over the new bounds of the book " + book); err != nil {
				return err
			}
		}
		b, err := node.ChangeBook(cmd.Context(), book, change)
		if err != nil {
			return err
		}
		return c.showBook(b)
	})
	options = optionFlags(cmd)
	return cmd
}

func (c *cli) logRemove() *cobra.Command {
	return c.aboutBook("rm BOOK", "Remove a book with all its records", func(cmd *cobra.Command, node *sdk.Client, book string) error {
		if err := c.sure("remove the book " + book + " with all its records"); err != nil {
			return err
		}
		return node.DeleteBook(cmd.Context(), book)
	})
}

func (c *cli) logTrim() *cobra.Command {
	var upto, tag string
	cmd := c.aboutBook("trim BOOK --upto SEQ", "Make records up to a seq unreadable, and give their space back", func(cmd *cobra.Command, node *sdk.Client, book string) error {
		if upto == "" {
			return &quipu.Error{Code: quipu.CodeUsage, Text: "trim needs the last seq that goes", Hint: "give --upto SEQ, or --upto tail for all there is now"}
		}
		seq, err := trimPoint(cmd, node, book, upto)
		if err != nil {
			return err
		}
		what := fmt.Sprintf("trim the book %s up to %s", book, seq)
		if tag != "" {
			what = fmt.Sprintf("trim the stream %s of the book %s up to %s", tag, book, seq)
		}
		if err := c.sure(what); err != nil {
			return err
		}
		return node.TrimBook(cmd.Context(), book, tag, seq)
	})
	cmd.Flags().StringVar(&upto, "upto", "", "the last seq that goes, or tail")
	cmd.Flags().StringVar(&tag, "tag", "", "only the stream of this tag; a record stays readable through its other tags")
	return cmd
}

// trimPoint is a seq, or the tail of the book.
func trimPoint(cmd *cobra.Command, node *sdk.Client, book, text string) (quipu.Seq, error) {
	if text != "tail" {
		return quipu.ParseSeq(text)
	}
	b, err := node.Book(cmd.Context(), book)
	if err == nil && b.Tail == 0 {
		err = usage("the book %s is empty", book)
	}
	return b.Tail, err
}

func (c *cli) logVerify() *cobra.Command {
	return c.aboutBook("verify BOOK", "Read every byte a book depends on", func(cmd *cobra.Command, node *sdk.Client, book string) error {
		var last sdk.Progress
		tell := c.progress()
		err := node.VerifyBook(cmd.Context(), book, func(p sdk.Progress) {
			if last = p; p.Total > 0 {
				tell("verified %d of %d bytes (%d %%)", p.Done, p.Total, p.Done*100/p.Total)
			}
		})
		if err != nil {
			return err
		}
		if c.output != "table" {
			return c.show(last)
		}
		_, err = fmt.Fprintf(c.out, "%s is whole: %d bytes verified\n", printable(book), last.Done)
		return err
	})
}

// progress notes how far work is, once a second.
func (c *cli) progress() func(format string, args ...any) {
	told := time.Now()
	return func(format string, args ...any) {
		if time.Since(told) > time.Second {
			told = time.Now()
			c.note(format, args...)
		}
	}
}

func (c *cli) logStats() *cobra.Command {
	return &cobra.Command{Use: "stats", Short: "Show what the log of the node holds, and did since it started", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		node, err := c.client()
		if err != nil {
			return err
		}
		s, err := node.LogStats(cmd.Context())
		if err != nil {
			return err
		}
		return c.showOne(statsView{s})
	}}
}

// statsView is what the log holds, for people.
type statsView struct{ sdk.LogStats }

func (v statsView) print(c *cli) error {
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	row := func(label, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", label, fmt.Sprintf(format, args...))
	}
	row("sync", "%s", v.Sync)
	row("holds", "%s in %s, %s", count(uint64(v.Records), "record"), count(uint64(v.Books), "book"), count(uint64(v.LiveBytes), "byte"))
	row("on disk", "%s in %s, and %s of spares", count(uint64(v.SegmentBytes), "byte"), count(uint64(v.Segments), "segment"), count(uint64(v.SpareBytes), "byte"))
	row("in memory", "%s of index not yet saved", count(uint64(v.IndexBytes), "byte"))
	row("appended", "%s in %s, %s written", count(v.Appended, "record"), count(v.Appends, "append"), count(v.Written, "byte"))
	row("commits", "%d, %s, %.1f appends each", v.Commits, count(v.Syncs, "sync"), float64(v.Appends)/float64(max(v.Commits, 1)))
	row("segments", "%d filled, %d deleted, %d of them written over; %s", v.Rolls, v.Deleted, v.Recycled, count(v.Checkpoints, "checkpoint"))
	row("moved", "%s out of %s", count(v.Moved, "record"), count(v.Relocated, "mostly dead segment"))
	if v.ReadOnly {
		row("read-only", "only %d bytes of the disk are free", v.DiskFree)
	}
	return w.Flush()
}

// completeBooks suggests books for the first argument.
func (c *cli) completeBooks(cmd *cobra.Command, args []string, _ string) (names []string, _ cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	node, err := c.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	books, err := node.Books(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	for _, b := range books {
		names = append(names, b.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
