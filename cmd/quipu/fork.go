package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

func (c *cli) travelCommands() []*cobra.Command {
	return []*cobra.Command{c.forkCommand(), c.replayCommand()}
}

func (c *cli) forkCommand() *cobra.Command {
	var running bool
	fork := &cobra.Command{Use: "fork NAMESPACE[@SEQ] NEW", Args: cobra.ExactArgs(2),
		Short:   "Make a namespace of another, as it was at a record or is now; nothing is copied",
		Example: "  quipu fork default preview\n  quipu fork default@0000000000000a2f before --run",
		RunE: func(cmd *cobra.Command, args []string) error {
			from, at, err := momentOf(args[0])
			if err != nil {
				return err
			}
			c.namespace = from
			node, err := c.client()
			if err != nil {
				return err
			}
			ns, err := node.Fork(cmd.Context(), sdk.ForkRequest{Name: args[1], At: at, Running: running})
			return c.showNamespace(ns, err)
		}}
	fork.Flags().BoolVar(&running, "run", false, "let triggers, schedules and calls that wait run in it, as in any namespace")
	fork.AddCommand(&cobra.Command{Use: "resume NAME", Short: "Let triggers, schedules and calls that wait run in a fork", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			node, err := c.client()
			if err != nil {
				return err
			}
			ns, err := node.ResumeFork(cmd.Context(), args[0])
			return c.showNamespace(ns, err)
		}})
	return fork
}

// momentOf reads NAMESPACE[@SEQ].
func momentOf(arg string) (namespace string, at quipu.Seq, err error) {
	namespace, seq, found := strings.Cut(arg, "@")
	if namespace == "" {
		return "", 0, usage("%q names no namespace; write NAMESPACE, or NAMESPACE@SEQ", arg)
	}
	if found {
		at, err = quipu.ParseSeq(seq)
	}
	return namespace, at, err
}

func (c *cli) showNamespace(ns sdk.Namespace, err error) error {
	if err != nil {
		return err
	}
	if c.output != "table" {
		return c.show(ns)
	}
	_, err = fmt.Fprintf(c.out, "%s is %s at %s\n", ns.Name, ns.Fork.Of, ns.Fork.At)
	if !ns.Fork.Running {
		c.note("nothing happens in it by itself; quipu fork resume %s lets its triggers run", ns.Name)
	}
	c.note("quipu -n %s … reaches it, and requests with the header %s: %s", ns.Name, sdk.HeaderNamespace, ns.Name)
	return err
}

const forkHead = "NAME\tFUNCTIONS\tAPPLIED\tFORK OF\tAT\tRUNS"

func forkRow(ns sdk.Namespace) []any {
	of, at, runs := "", "", "yes"
	if f := ns.Fork; f != nil {
		of, at = f.Of, f.At.String()
		if !f.Running {
			runs = "when called"
		}
	}
	return []any{ns.Name, ns.Functions, ns.Applied, of, at, runs}
}

func (c *cli) replayCommand() *cobra.Command {
	var o sdk.ReplayOptions
	replay := &cobra.Command{Use: "replay CALL", Short: "Make a call again on what it had read, in a scratch namespace, and show what differs", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			node, err := c.client()
			if err != nil {
				return err
			}
			r, err := node.Replay(cmd.Context(), args[0], o)
			if err != nil {
				return err
			}
			if err := c.showOne(replayView{r}); err != nil {
				return err
			}
			if !r.Same {
				return shown("the replay differs")
			}
			return nil
		}}
	replay.Flags().StringVar(&o.Revision, "revision", "", "run this revision instead of the one that made the call")
	replay.Flags().BoolVar(&o.Outside, "outside", false, "let it reach the network; what it does there is done again")
	return replay
}

// replayView is a comparison, for people.
type replayView struct{ quipu.CallReplay }

func (v replayView) print(c *cli) error {
	fmt.Fprintf(c.out, "%s of %s, again on what was at %s\n", v.Call.ID, v.Call.Function, v.At)
	fmt.Fprintf(c.out, "  was  %d by revision %s in %s\n", v.Call.Status, v.Call.Revision, time.Duration(v.Call.Micros)*time.Microsecond)
	fmt.Fprintf(c.out, "  is   %d by revision %s in %s\n", v.Again.Status, v.Again.Revision, time.Duration(v.Again.Micros)*time.Microsecond)
	for _, d := range v.Differences {
		fmt.Fprintf(c.out, "%s\n  was  %s\n  is   %s\n", printable(d.What), sideOf(d.Was), sideOf(d.Is))
	}
	if v.Note != "" {
		c.note("%s", v.Note)
	}
	verdict := "the same"
	if !v.Same {
		verdict = count(uint64(len(v.Differences)), "difference")
	}
	_, err := fmt.Fprintln(c.out, verdict)
	return err
}

func sideOf(text string) string {
	if text == "" {
		return "nothing"
	}
	return printable(text)
}
