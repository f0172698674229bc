package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/bundle"
	"github.com/quipu-run/quipu/sdk"
)

func (c *cli) appCommands() []*cobra.Command {
	deploy := &cobra.Command{Use: "deploy DIR", Short: "Deploy the application in a folder", Args: cobra.ExactArgs(1), SuggestFor: []string{"apply", "push"}}
	app := deploy.Flags().String("app", "", "name of the application; default: that of the folder")
	quiet := deploy.Flags().Bool("no-traffic", false, "leave the traffic of functions that are there where it is: quipu traffic gives it to the new revision")
	deploy.RunE = func(cmd *cobra.Command, args []string) error {
		node, err := c.client()
		if err != nil {
			return err
		}
		var functions []quipu.Function
		err = c.slow("building and deploying "+args[0], func() error {
			functions, err = deployDir(cmd.Context(), node, args[0], *app, quipu.DeployOptions{NoTraffic: *quiet})
			return err
		})
		if err != nil {
			return err
		}
		return c.list(functionTable(functions))
	}
	return []*cobra.Command{c.newCommand(), c.buildCommand(), c.testCommand(), deploy, c.removeCommand(), c.listCommand(), c.getCommand()}
}

// deployDir bundles and deploys.
func deployDir(ctx context.Context, node *sdk.Client, dir, app string, o quipu.DeployOptions) ([]quipu.Function, error) {
	if app == "" {
		app = appName(dir)
	}
	data, err := bundle.Pack(ctx, dir)
	if err != nil {
		return nil, err
	}
	return node.DeployWith(ctx, app, data, o)
}

// appName makes a name of a folder's: lower case, digits and dashes.
func appName(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(filepath.Base(dir)))
	if name = strings.Trim(name, "-"); name == "" {
		return "app"
	}
	return name
}

func functionTable(functions []quipu.Function) table {
	return tableOf("NAME\tAPP\tNUMBER\tREVISION\tRUNTIME\tATOMIC\tROUTES\tDEPLOYED", functions, func(f quipu.Function) []any {
		var routes []string
		for _, t := range f.Spec.Triggers {
			if t.HTTP != nil {
				routes = append(routes, t.HTTP.Path)
			}
		}
		return []any{f.Name, f.App, f.Number, f.Revision, f.Spec.Runtime, f.Spec.Atomic, strings.Join(routes, " "), f.Deployed.Format(time.RFC3339)}
	})
}

// kind is a kind of thing that ls, get and rm know.
type kind struct {
	name string
	list func(context.Context, *sdk.Client) (table, error)
	get  func(context.Context, *sdk.Client, string) (any, error)
	rm   func(context.Context, *sdk.Client, string) error
}

// listing fits a method of the client to a table.
func listing[T any](head string, all func(*sdk.Client, context.Context) ([]T, error), row func(T) []any) func(context.Context, *sdk.Client) (table, error) {
	return func(ctx context.Context, node *sdk.Client) (table, error) {
		items, err := all(node, ctx)
		return tableOf(head, items, row), err
	}
}

var kinds = []kind{
	{name: "functions",
		list: func(ctx context.Context, node *sdk.Client) (table, error) {
			functions, err := node.Functions(ctx)
			return functionTable(functions), err
		},
		get: func(ctx context.Context, node *sdk.Client, name string) (any, error) { return node.Function(ctx, name) },
		rm:  func(ctx context.Context, node *sdk.Client, name string) error { return node.Remove(ctx, name) }},
	{name: "routes", list: listing("PATH\tMETHODS\tFUNCTION", (*sdk.Client).Routes, func(r sdk.Route) []any {
		methods := strings.Join(r.Methods, ",")
		if methods == "" {
			methods = "all"
		}
		return []any{r.Path, methods, r.Function}
	})},
	{name: "revisions", list: listing(revisionHead, func(node *sdk.Client, ctx context.Context) ([]quipu.Revision, error) {
		return node.Revisions(ctx, "")
	}, revisionRow)},
	{name: "topics",
		list: listing("NAME\tEVENTS\tBYTES\tSUBSCRIPTIONS\tLAG\tRETRYING\tDEAD LETTERS\tRETENTION", (*sdk.Client).Topics, topicRow),
		get:  getTopicView,
		rm:   func(ctx context.Context, node *sdk.Client, name string) error { return node.RemoveTopic(ctx, name) }},
	{name: "instances", list: listing("ID\tFUNCTION\tREVISION\tSTATE\tPID\tCALLS\tSTARTED\tWAIT+START+INIT", (*sdk.Client).Instances, func(i sdk.Instance) []any {
		return []any{i.ID, i.Function, i.Revision, i.State, i.PID, i.Calls, i.Started.Format(time.RFC3339), coldStart(i.ColdStart)}
	})},
	{name: "calls",
		list: listing("ID\tFUNCTION\tSTATUS\tSTART", func(c *sdk.Client, ctx context.Context) ([]quipu.CallInfo, error) { return c.Calls(ctx, "", 100) },
			func(i quipu.CallInfo) []any {
				return []any{i.ID, i.Function, i.Status, i.Start.Format(time.RFC3339)}
			}),
		get: getCallView},
	{name: "namespaces", list: listing(forkHead, (*sdk.Client).Namespaces, forkRow),
		rm: func(ctx context.Context, node *sdk.Client, name string) error { return node.RemoveNamespace(ctx, name) }},
	{name: "books", list: listing(bookHead, (*sdk.Client).Books, bookRow),
		get: func(ctx context.Context, node *sdk.Client, name string) (any, error) { return node.Book(ctx, name) },
		rm:  func(ctx context.Context, node *sdk.Client, name string) error { return node.DeleteBook(ctx, name) }},
}

// kindOf takes singular and plural, and says what can be done with which kind.
func kindOf(name, verb string, can func(kind) bool) (kind, error) {
	var names []string
	for _, k := range kinds {
		if can(k) {
			names = append(names, k.name)
			if k.name == name || k.name == name+"s" {
				return k, nil
			}
		}
	}
	return kind{}, usage("quipu %s knows no %q; it takes %s", verb, name, strings.Join(names, ", "))
}

// coldStart is its phases in milliseconds.
func coldStart(c sdk.ColdStart) string {
	ms := func(micros int64) string { return strconv.FormatFloat(float64(micros)/1000, 'f', 1, 64) }
	return ms(c.WaitMicros) + "+" + ms(c.StartMicros) + "+" + ms(c.InitMicros) + "ms"
}

func (c *cli) listCommand() *cobra.Command {
	can := func(k kind) bool { return k.list != nil }
	return &cobra.Command{Use: "ls [KIND]", Short: "List functions, revisions, routes, topics, instances, calls or books", Args: cobra.MaximumNArgs(1),
		ValidArgsFunction: c.completeKind(can),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.listKind(cmd.Context(), append(args, "functions")[0])
		}}
}

func (c *cli) listKind(ctx context.Context, name string) error {
	k, err := kindOf(name, "ls", func(k kind) bool { return k.list != nil })
	if err != nil {
		return err
	}
	node, err := c.client()
	if err != nil {
		return err
	}
	t, err := k.list(ctx, node)
	if err != nil {
		return err
	}
	return c.list(t)
}

// completeKind suggests a kind, and then, unless only kinds are wanted, what there is of it: the first column.
func (c *cli) completeKind(can func(kind) bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) (names []string, _ cobra.ShellCompDirective) {
		if len(args) == 0 {
			for _, k := range kinds {
				if can(k) {
					names = append(names, k.name)
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		}
		k, err := kindOf(args[0], "", func(k kind) bool { return can(k) && k.get != nil })
		if err != nil || len(args) > 1 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		node, err := c.client()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		t, err := k.list(cmd.Context(), node)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		for _, row := range t.rows {
			names = append(names, fmt.Sprint(row[0]))
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func (c *cli) getCommand() *cobra.Command {
	can := func(k kind) bool { return k.get != nil }
	return &cobra.Command{Use: "get KIND NAME", Short: "Show one function, topic or call", Args: cobra.ExactArgs(2), ValidArgsFunction: c.completeKind(can), RunE: func(cmd *cobra.Command, args []string) error {
		k, err := kindOf(args[0], "get", can)
		if err != nil {
			return err
		}
		node, err := c.client()
		if err != nil {
			return err
		}
		v, err := k.get(cmd.Context(), node, args[1])
		if err != nil {
			return err
		}
		return c.showOne(v)
	}}
}

// showOne prints a value for people, if it has such a form and nothing else was asked for.
func (c *cli) showOne(v any) error {
	if p, ok := v.(printer); ok && c.output == "table" {
		return p.print(c)
	}
	return c.show(v)
}

// printer is a value with a form for people that is not YAML.
type printer interface{ print(*cli) error }

func (c *cli) removeCommand() *cobra.Command {
	can := func(k kind) bool { return k.rm != nil }
	return &cobra.Command{Use: "rm KIND NAME", Short: "Take a function, a topic or a namespace away", SuggestFor: []string{"delete", "remove"}, Args: cobra.ExactArgs(2), ValidArgsFunction: c.completeKind(can), RunE: func(cmd *cobra.Command, args []string) error {
		k, err := kindOf(args[0], "rm", can)
		if err != nil {
			return err
		}
		if err := c.sure(fmt.Sprintf("remove %s %s", strings.TrimSuffix(k.name, "s"), args[1])); err != nil {
			return err
		}
		node, err := c.client()
		if err != nil {
			return err
		}
		return k.rm(cmd.Context(), node, args[1])
	}}
}
