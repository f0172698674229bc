package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/quipu-run/quipu"
)

func (c *cli) leaseCommands() *cobra.Command {
	leases := &cobra.Command{Use: "leases", Short: "See who owns what", Args: cobra.NoArgs}
	var l quipu.LeaseList
	ls := &cobra.Command{Use: "ls [PREFIX]", Short: "List leases as the log has them: whose, since when, until when, and their fencing tokens", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				l.Prefix = args[0]
			}
			if l.Limit < 0 {
				return usage("--limit is %d; it must be 0 or more", l.Limit)
			}
			return c.listLeases(cmd.Context(), l)
		}}
	ls.Flags().IntVar(&l.Limit, "limit", 1000, "at most so many; 0 means all")
	leases.AddCommand(ls)
	return leases
}

func (c *cli) listLeases(ctx context.Context, l quipu.LeaseList) error {
	node, err := c.client()
	if err != nil {
		return err
	}
	all, err := pages(l.Limit, quipu.LeasesListMax, func(limit int) ([]quipu.Lease, bool, error) {
		l.Limit = limit
		page, err := node.Leases(ctx, l)
		l.After = page.Next
		return page.Leases, page.Next != "", err
	})
	if err != nil {
		return err
	}
	return c.list(tableOf("NAME\tOWNER\tTOKEN\tSINCE\tUNTIL", all, func(l quipu.Lease) []any {
		until := "-"
		if !l.Until.IsZero() {
			until = l.Until.Format(time.RFC3339)
		}
		return []any{l.Name, l.Owner, l.Token, l.Since.Format(time.RFC3339), until}
	}))
}
