package main

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// workflowFlags are those of all verbs that name an instance.
type workflowFlags struct{ app string }

func (f *workflowFlags) key(id string) quipu.WorkflowKey {
	return quipu.WorkflowKey{App: f.app, ID: id}
}

func (c *cli) workflowCommand() *cobra.Command {
	f := &workflowFlags{}
	group := &cobra.Command{Use: "workflow", Short: "Start workflows, look at them, and tell them something"}
	group.PersistentFlags().StringVar(&f.app, "app", "default", "the application, or function, whose workflow it is")
	group.AddCommand(c.workflowStart(f), c.workflowList(f), c.workflowGet(f), c.workflowRaise(f),
		c.workflowTell(f, "suspend", "Have a workflow do nothing until it is resumed"), c.workflowTell(f, "resume", "Have a suspended workflow go on"),
		c.workflowTerminate(f), c.workflowRerun(f), c.workflowPurge(f), c.workflowHistory(f))
	return group
}

func (c *cli) workflowStart(f *workflowFlags) *cobra.Command {
	var s sdk.WorkflowStart
	var at string
	var wait bool
	cmd := &cobra.Command{Use: "start [NAME]", Short: "Start a workflow, and print its id; no name for a durable function", Args: cobra.MaximumNArgs(1),
		Example: "  quipu workflow start Order --app shop -d '\"tea\"' --wait",
		RunE: func(cmd *cobra.Command, args []string) error {
			node, err := c.client()
			if err != nil {
				return err
			}
			if s.At, err = startTime(at); err != nil {
				return err
			}
			s.App, s.Name = f.app, strings.Join(args, "")
			id, err := node.StartWorkflow(cmd.Context(), s)
			if err != nil {
				return err
			}
			if !wait {
				_, err = fmt.Fprintln(c.out, id)
				return err
			}
			info, err := node.Workflow(cmd.Context(), f.key(id), true)
			if err != nil {
				return err
			}
			return c.showOne(workflowView(info))
		}}
	cmd.Flags().StringVar(&s.ID, "id", "", "the id; by default one is made")
	cmd.Flags().StringVarP(&s.Input, "data", "d", "", "the input, as JSON")
	cmd.Flags().StringVar(&at, "at", "", "when to begin: a time like 2026-01-02T15:04:05Z, or a duration from now")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait for the end, and show it")
	return cmd
}

// startTime reads a time or a duration from now.
func startTime(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil {
		return time.Now().Add(d), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, usage("%q is neither a time like 2026-01-02T15:04:05Z nor a duration like 10m", text)
	}
	return at, nil
}

const workflowHead = "APP\tID\tNAME\tSTATUS\tEVENTS\tINBOX\tUPDATED"

func workflowRow(w quipu.WorkflowInfo) []any {
	return []any{w.App, w.ID, cmp.Or(w.Name, "-"), w.Status, w.Events, w.Inbox, w.Updated.Format(time.RFC3339)}
}

func (c *cli) workflowList(f *workflowFlags) *cobra.Command {
	var l quipu.WorkflowList
	var status string
	cmd := &cobra.Command{Use: "ls", Short: "List workflows, those of one application with --app", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			node, err := c.client()
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("app") {
				l.App = f.app
			}
			l.Status = quipu.WorkflowStatus(strings.ToUpper(status))
			all, err := pages(0, quipu.WorkflowsListMax, func(limit int) ([]quipu.WorkflowInfo, bool, error) {
				l.Limit = limit
				page, err := node.Workflows(cmd.Context(), l)
				if page.Next != nil {
					l.After = *page.Next
				}
				return page.Workflows, page.Next != nil, err
			})
			if err != nil {
				return err
			}
			return c.list(tableOf(workflowHead, all, workflowRow))
		}}
	cmd.Flags().StringVar(&status, "status", "", "only those that are pending, running, suspended, stalled, completed, failed or terminated")
	cmd.Flags().StringVar(&l.Name, "name", "", "only instances of this workflow")
	return cmd
}

// workflowShown is an instance with its payloads as text.
type workflowShown struct {
	quipu.WorkflowInfo
	Input  string `json:"input,omitempty"`
	Output string `json:"output,omitempty"`
}

func workflowView(w quipu.WorkflowInfo) workflowShown {
	return workflowShown{w, string(w.Input), string(w.Output)}
}

func (c *cli) workflowGet(f *workflowFlags) *cobra.Command {
	var wait bool
	cmd := &cobra.Command{Use: "get ID", Short: "Show a workflow, and what it waits for", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			node, err := c.client()
			if err != nil {
				return err
			}
			info, err := node.Workflow(cmd.Context(), f.key(args[0]), wait)
			if err != nil {
				return err
			}
			return c.showOne(workflowView(info))
		}}
	cmd.Flags().BoolVar(&wait, "wait", false, "wait for the end")
	return cmd
}

// workflowDo is a verb that prints nothing.
func (c *cli) workflowDo(cmd *cobra.Command, k quipu.WorkflowKey, verb string, what any) error {
	node, err := c.client()
	if err != nil {
		return err
	}
	return node.ToWorkflow(cmd.Context(), k, verb, what)
}

func (c *cli) workflowRaise(f *workflowFlags) *cobra.Command {
	var e sdk.WorkflowRaise
	cmd := &cobra.Command{Use: "raise ID EVENT", Short: "Give a workflow an event", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			e.Event = args[1]
			return c.workflowDo(cmd, f.key(args[0]), "raise", e)
		}}
	cmd.Flags().StringVarP(&e.Data, "data", "d", "", "what it carries, as JSON")
	return cmd
}

func (c *cli) workflowTell(f *workflowFlags, verb, short string) *cobra.Command {
	var r sdk.WorkflowReason
	cmd := &cobra.Command{Use: verb + " ID", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return c.workflowDo(cmd, f.key(args[0]), verb, r) }}
	cmd.Flags().StringVar(&r.Reason, "reason", "", "why, for its history")
	return cmd
}

func (c *cli) workflowTerminate(f *workflowFlags) *cobra.Command {
	var e sdk.WorkflowEnd
	cmd := &cobra.Command{Use: "terminate ID", Short: "End a workflow, and its children", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.workflowDo(cmd, f.key(args[0]), "terminate", e)
		}}
	cmd.Flags().StringVarP(&e.Output, "data", "d", "", "its output, as JSON")
	cmd.Flags().BoolVar(&e.Alone, "alone", false, "without its children")
	return cmd
}

func (c *cli) workflowRerun(f *workflowFlags) *cobra.Command {
	var r sdk.WorkflowRerun
	var input string
	cmd := &cobra.Command{Use: "rerun ID EVENT", Short: "Make another workflow that does again what this one did from an event on, and print its id", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if r.Event, err = strconv.Atoi(args[1]); err != nil {
				return usage("%q is no number of an event; quipu workflow history %s shows them", args[1], args[0])
			}
			if cmd.Flags().Changed("data") {
				r.Input = &input
			}
			node, err := c.client()
			if err != nil {
				return err
			}
			id, err := node.RerunWorkflow(cmd.Context(), f.key(args[0]), r)
			if err == nil {
				_, err = fmt.Fprintln(c.out, id)
			}
			return err
		}}
	cmd.Flags().StringVar(&r.To, "id", "", "the id; by default one is made")
	cmd.Flags().StringVarP(&input, "data", "d", "", "another input of that event, as JSON")
	return cmd
}

func (c *cli) workflowPurge(f *workflowFlags) *cobra.Command {
	var p sdk.WorkflowPurge
	var before time.Duration
	cmd := &cobra.Command{Use: "purge [ID]", Short: "Forget a workflow that has ended, or all of an application that ended --older ago", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && !cmd.Flags().Changed("older") {
				return usage("name a workflow, or say --older DURATION")
			}
			if len(args) == 0 {
				p.App, p.Before = f.app, time.Now().Add(-before).UTC().Format(time.RFC3339)
			}
			node, err := c.client()
			if err != nil {
				return err
			}
			n, err := node.PurgeWorkflows(cmd.Context(), f.key(strings.Join(args, "")), p)
			if err == nil {
				_, err = fmt.Fprintln(c.out, n)
			}
			return err
		}}
	cmd.Flags().DurationVar(&before, "older", 0, "those that ended so long ago")
	cmd.Flags().StringVar(&p.Name, "name", "", "only instances of this workflow")
	cmd.Flags().BoolVar(&p.Recursive, "recursive", false, "with its children")
	cmd.Flags().BoolVar(&p.Force, "force", false, "also if it has not ended")
	return cmd
}

func (c *cli) workflowHistory(f *workflowFlags) *cobra.Command {
	return &cobra.Command{Use: "history ID", Short: "Show what happened in a workflow", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			node, err := c.client()
			if err != nil {
				return err
			}
			list, err := node.WorkflowHistory(cmd.Context(), f.key(args[0]))
			if err != nil {
				return err
			}
			return c.list(tableOf("N\tTIME\tTYPE\tEVENT\tNAME\tDATA", list, func(e quipu.WorkflowEvent) []any {
				id := ""
				if e.ID >= 0 {
					id = strconv.Itoa(e.ID)
				}
				return []any{e.N, e.Time.Format(time.RFC3339Nano), e.Type, id, e.Name, cmp.Or(e.Error, e.Data)}
			}))
		}}
}
