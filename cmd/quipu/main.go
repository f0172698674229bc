// Command quipu is the one binary: a node, and the command line that talks to nodes.
//
// Data goes to stdout, everything else to stderr. It exits with 0 when done, 1 when it failed, 2 for a
// mistake in the command line, and 3 if no node answers. There is no logic here: what verbs do is in the node
// (package server) and behind its admin API (package sdk).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/quipu-run/quipu"
)

// version is set by the linker in a release.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is main without the process: it answers the exit code.
func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	c := &cli{in: in, out: out, err: errOut}
	root := c.root()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	if err != nil && !c.ran {
		err = misuse(err)
	}
	if err == nil || ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return 0
	}
	c.complain(err)
	return exitCode(err)
}

// misuse is an error of cobra's about the command line, in our form.
func misuse(err error) error {
	var e *quipu.Error
	if errors.As(err, &e) {
		return err
	}
	return &quipu.Error{Code: quipu.CodeUsage, Text: strings.TrimSpace(err.Error()), Hint: "quipu --help lists the commands; quipu COMMAND --help their flags"}
}

func exitCode(err error) int {
	switch quipu.CodeOf(err) {
	case quipu.CodeUsage:
		return 2
	case quipu.CodeNoNode:
		return 3
	}
	return 1
}

// complain says what happened, why, and what to type.
func (c *cli) complain(err error) {
	var silent shown
	if errors.As(err, &silent) {
		return
	}
	label := c.paint("error:", "31")
	var e *quipu.Error
	if !errors.As(err, &e) {
		fmt.Fprintf(c.err, "%s %v\n", label, err)
		return
	}
	text, hint := e.Text, e.Hint
	if text == "" {
		text = quipu.Codes[e.Code].Title
	}
	if hint == "" {
		hint = quipu.Codes[e.Code].Next
	}
	if e.Code == quipu.CodeNoNode && e.Hint == "" {
		hint = "start one here:   quipu dev\nor name another:  quipu --node URL ls"
	}
	fmt.Fprintf(c.err, "%s %s  [%s]\n", label, text, e.Code)
	for line := range strings.Lines(hint) {
		fmt.Fprintf(c.err, "  %s\n", strings.TrimSuffix(line, "\n"))
	}
	fmt.Fprintf(c.err, "  more:             quipu explain %s\n", e.Code)
}

// root is the tree of commands.
func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use: "quipu", Short: "A stateful serverless platform in one binary", Version: version,
		SilenceErrors: true, SilenceUsage: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			c.ran = true
			return c.checkOutput()
		},
	}
	f := root.PersistentFlags()
	f.StringVar(&c.node, "node", os.Getenv("QUIPU_NODE"), "URL of the node (QUIPU_NODE; else .quipu/node.json here or above, else 127.0.0.1:8080)")
	f.StringVar(&c.token, "token", "", "token of the node (QUIPU_TOKEN)")
	f.StringVarP(&c.namespace, "namespace", "n", "", "namespace")
	f.StringVarP(&c.output, "output", "o", "table", "table, json or yaml")
	f.BoolVar(&c.yes, "yes", false, "do what destroys without asking")
	root.AddCommand(c.nodeCommands()...)
	root.AddCommand(c.backupCommands()...)
	root.AddCommand(c.appCommands()...)
	root.AddCommand(c.revisionCommands()...)
	root.AddCommand(c.workflowCommand())
	root.AddCommand(c.callCommands()...)
	root.AddCommand(c.travelCommands()...)
	root.AddCommand(c.billCommand(), c.budgetCommand())
	root.AddCommand(c.topicCommands()...)
	root.AddCommand(c.stateCommand(), c.configCommand(), c.logCommand(), c.doctorCommand(), c.explainCommand(), c.versionCommand(), c.runCommand(), c.daprdCommand(), c.jobsCommand(), c.actorCommands(), c.leaseCommands())
	return root
}

func (c *cli) versionCommand() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Print the version", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		_, err := fmt.Fprintln(c.out, version)
		return err
	}}
}
