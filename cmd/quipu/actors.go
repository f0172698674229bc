package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/quipu-run/quipu"
)

func (c *cli) actorCommands() *cobra.Command {
	actors := &cobra.Command{Use: "actors", Short: "See which actors are active, and where", Args: cobra.NoArgs}
	var l quipu.ActorList
	ls := &cobra.Command{Use: "ls [TYPE]", Short: "List actors that are active: where, since when, and whose they are", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				l.Type = args[0]
			}
			if l.Limit < 0 {
				return usage("--limit is %d; it must be 0 or more", l.Limit)
			}
			return c.listActors(cmd.Context(), l)
		}}
	ls.Flags().IntVar(&l.Limit, "limit", 1000, "at most so many; 0 means all")
	actors.AddCommand(ls)
	return actors
}

func (c *cli) listActors(ctx context.Context, l quipu.ActorList) error {
	node, err := c.client()
	if err != nil {
		return err
	}
	all, err := pages(l.Limit, quipu.ActorsListMax, func(limit int) ([]quipu.ActorInfo, bool, error) {
		l.Limit = limit
		page, err := node.Actors(ctx, l)
		if page.Next != nil {
			l.After = *page.Next
		}
		return page.Actors, page.Next != nil, err
	})
	if err != nil {
		return err
	}
	return c.list(tableOf("TYPE\tID\tFUNCTION\tINSTANCE\tSINCE\tTOKEN\tBUSY\tWAITING\tTIMERS", all, func(a quipu.ActorInfo) []any {
		return []any{a.Type, a.ID, a.Function, a.Instance, a.Since.Format(time.RFC3339), a.Token, a.Busy, a.Waiting, a.Timers}
	}))
}
