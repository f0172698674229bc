package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quipu-run/quipu/sdk"
)

func (c *cli) logCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "log", Short: "The log itself: books and their records"}
	cmd.AddCommand(
		&cobra.Command{Use: "ls", Short: "List books", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return c.listBooks(cmd) }},
		c.logRead(), c.logTail(), c.logVerify())
	return cmd
}

func (c *cli) listBooks(cmd *cobra.Command) error {
	node, err := c.client()
	if err != nil {
		return err
	}
	books, err := node.Books(cmd.Context())
	if err != nil {
		return err
	}
	return c.list(tableOf("NAME\tID\tTAIL\tTRIM", books, func(b sdk.Book) []any { return []any{b.Name, b.ID, b.Tail, b.Trim} }))
}

func readFlags(cmd *cobra.Command) *sdk.ReadRequest {
	r := &sdk.ReadRequest{}
	cmd.Flags().StringVar(&r.Tag, "tag", "", "only records with this tag")
	cmd.Flags().StringVar(&r.From, "from", "", "the first seq wanted")
	return r
}

func (c *cli) logRead() *cobra.Command {
	cmd := &cobra.Command{Use: "read BOOK", Short: "Print records of a book", Args: cobra.ExactArgs(1)}
	r := readFlags(cmd)
	cmd.Flags().IntVar(&r.Limit, "limit", 1000, "at most so many, up to 1000")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		node, err := c.client()
		if err != nil {
			return err
		}
		page, err := node.ReadBook(cmd.Context(), args[0], *r)
		if err != nil {
			return err
		}
		if page.Next != "" {
			c.note("there are more: --from %s", page.Next)
		}
		return c.list(tableOf("SEQ\tKIND\tTIME\tTAGS\tDATA", page.Items, recordRow))
	}
	return cmd
}

func recordRow(r sdk.Record) []any {
	const most = 60
	data := string(r.Data)
	if len(data) > most {
		data = fmt.Sprintf("%s… (%d bytes)", strings.ToValidUTF8(data[:most], ""), len(r.Data))
	}
	return []any{r.Seq, r.Kind, r.Time.Format(time.RFC3339), strings.Join(r.Tags, ","), strings.ToValidUTF8(data, "·")}
}

func (c *cli) logTail() *cobra.Command {
	cmd := &cobra.Command{Use: "tail BOOK", Short: "Print records of a book as they come", Args: cobra.ExactArgs(1)}
	r := readFlags(cmd)
	limit := cmd.Flags().Int("limit", 0, "end after so many; 0 means never")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		node, err := c.client()
		if err != nil {
			return err
		}
		n := 0
		for rec, err := range node.TailBook(cmd.Context(), args[0], *r) {
			if err != nil {
				return err
			}
			if err := c.printRecord(rec); err != nil {
				return err
			}
			if n++; n == *limit {
				return nil
			}
		}
		return nil
	}
	return cmd
}

func (c *cli) printRecord(rec sdk.Record) error {
	if c.output != "table" {
		return json.NewEncoder(c.out).Encode(rec)
	}
	_, err := fmt.Fprintln(c.out, printable(strings.TrimSuffix(fmt.Sprintln(recordRow(rec)...), "\n")))
	return err
}

func (c *cli) logVerify() *cobra.Command {
	return &cobra.Command{Use: "verify BOOK", Short: "Read every byte a book depends on", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		node, err := c.client()
		if err != nil {
			return err
		}
		told := time.Now()
		var last sdk.Progress
		err = node.VerifyBook(cmd.Context(), args[0], func(p sdk.Progress) {
			last = p
			if time.Since(told) > time.Second && p.Total > 0 {
				told = time.Now()
				c.note("verified %d of %d bytes (%d %%)", p.Done, p.Total, p.Done*100/p.Total)
			}
		})
		if err != nil {
			return err
		}
		if c.output != "table" {
			return c.show(last)
		}
		_, err = fmt.Fprintf(c.out, "%s is whole: %d bytes verified\n", args[0], last.Done)
		return err
	}}
}
