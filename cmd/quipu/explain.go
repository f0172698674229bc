package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quipu-run/quipu"
)

// page is a code with its page.
type page struct {
	Code   quipu.Code `json:"code"`
	Title  string     `json:"title"`
	Status int        `json:"status"`
	Why    string     `json:"why"`
	Next   string     `json:"next"`
}

func pageOf(code quipu.Code) page {
	i := quipu.Codes[code]
	return page{code, i.Title, i.Status, i.Why, i.Next}
}

func (c *cli) explainCommand() *cobra.Command {
	return &cobra.Command{Use: "explain [CODE]", Short: "Explain an error code, or list them all", Args: cobra.MaximumNArgs(1), RunE: func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			var all []page
			for _, code := range slices.Sorted(maps.Keys(quipu.Codes)) {
				all = append(all, pageOf(code))
			}
			return c.list(tableOf("CODE\tSTATUS\tMEANING", all, func(p page) []any { return []any{p.Code, p.Status, p.Title} }))
		}
		code := quipu.Code(strings.ToUpper(args[0]))
		if _, ok := quipu.Codes[code]; !ok {
			return &quipu.Error{Code: quipu.CodeUsage, Text: fmt.Sprintf("%q is not a code", args[0]), Hint: "quipu explain lists them"}
		}
		p := pageOf(code)
		if c.output != "table" {
			return c.show(p)
		}
		_, err := fmt.Fprintf(c.out, "%s  %s\n\n  %s\n  %s\n\n  HTTP status: %d\n", p.Code, p.Title, p.Why, p.Next, p.Status)
		return err
	}}
}
