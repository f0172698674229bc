package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

func (c *cli) revisionCommands() []*cobra.Command {
	revisions := &cobra.Command{Use: "revisions NAME", Short: "List the revisions of a function, the newest first", Args: cobra.ExactArgs(1),
		ValidArgsFunction: c.completeRevisions, RunE: func(cmd *cobra.Command, args []string) error {
			return c.showRevisions(func(node *sdk.Client) ([]quipu.Revision, error) { return node.Revisions(cmd.Context(), args[0]) })
		}}
	rollback := &cobra.Command{Use: "rollback NAME [REVISION]", Short: "Give all traffic back to the revision before, or to the one that is named", Args: cobra.RangeArgs(1, 2),
		ValidArgsFunction: c.completeRevisions, RunE: func(cmd *cobra.Command, args []string) error {
			to := strings.Join(args[1:], "")
			return c.showRevisions(func(node *sdk.Client) ([]quipu.Revision, error) { return node.Rollback(cmd.Context(), args[0], to) })
		}}
	return []*cobra.Command{revisions, c.trafficCommand(), rollback, c.aliasCommand()}
}

func (c *cli) trafficCommand() *cobra.Command {
	return &cobra.Command{Use: "traffic NAME [REVISION=PERCENT...]", Short: "Show or set which revisions of a function get which part of its calls", Args: cobra.MinimumNArgs(1),
		Example:           "  quipu traffic stats 7=90 8=10",
		ValidArgsFunction: c.completeRevisions, RunE: func(cmd *cobra.Command, args []string) error {
			parts, err := partsOf(args[1:])
			if err != nil {
				return err
			}
			return c.showRevisions(func(node *sdk.Client) (list []quipu.Revision, err error) {
				if len(parts) > 0 {
					list, err = node.Split(cmd.Context(), args[0], parts)
				} else {
					list, err = node.Revisions(cmd.Context(), args[0])
				}
				return withTraffic(list), err
			})
		}}
}

// partsOf reads REVISION=PERCENT; a sign of percent may follow.
func partsOf(args []string) (parts []quipu.Part, err error) {
	for _, arg := range args {
		revision, text, found := strings.Cut(arg, "=")
		percent, err := strconv.Atoi(strings.TrimSuffix(text, "%"))
		if !found || revision == "" || err != nil {
			return nil, usage("%q is no part of the traffic; write REVISION=PERCENT, as 7=90", arg)
		}
		parts = append(parts, quipu.Part{Revision: revision, Percent: percent})
	}
	return parts, nil
}

func withTraffic(all []quipu.Revision) (list []quipu.Revision) {
	for _, r := range all {
		if r.Percent > 0 {
			list = append(list, r)
		}
	}
	return list
}

func (c *cli) aliasCommand() *cobra.Command {
	alias := &cobra.Command{Use: "alias NAME ALIAS REVISION", Short: "Name a revision, so that callers can choose it", Args: cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.setAlias(cmd.Context(), args[0], args[1], args[2])
		}}
	alias.AddCommand(&cobra.Command{Use: "rm NAME ALIAS", Short: "Take a name of a revision away", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error { return c.setAlias(cmd.Context(), args[0], args[1], "") }})
	return alias
}

func (c *cli) setAlias(ctx context.Context, name, alias, revision string) error {
	node, err := c.client()
	if err != nil {
		return err
	}
	return node.SetAlias(ctx, name, alias, revision)
}

func (c *cli) showRevisions(get func(*sdk.Client) ([]quipu.Revision, error)) error {
	node, err := c.client()
	if err != nil {
		return err
	}
	list, err := get(node)
	if err != nil {
		return err
	}
	return c.list(tableOf(revisionHead, list, revisionRow))
}

const revisionHead = "FUNCTION\tNUMBER\tREVISION\tTRAFFIC\tALIASES\tDEPLOYED"

func revisionRow(r quipu.Revision) []any {
	return []any{r.Name, r.Number, r.Revision, fmt.Sprintf("%d%%", r.Percent), strings.Join(r.Aliases, " "), r.Deployed.Format(time.RFC3339)}
}

// completeRevisions suggests a function, and then its revisions.
func (c *cli) completeRevisions(cmd *cobra.Command, args []string, _ string) (names []string, _ cobra.ShellCompDirective) {
	node, err := c.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	if len(args) == 0 {
		functions, err := node.Functions(cmd.Context())
		for _, f := range functions {
			names = append(names, f.Name)
		}
		return names, directiveOf(err)
	}
	list, err := node.Revisions(cmd.Context(), args[0])
	for _, r := range list {
		names = append(append(names, strconv.Itoa(r.Number)), r.Aliases...)
	}
	return names, directiveOf(err)
}

func directiveOf(err error) cobra.ShellCompDirective {
	if err != nil {
		return cobra.ShellCompDirectiveError
	}
	return cobra.ShellCompDirectiveNoFileComp
}
