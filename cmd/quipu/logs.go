package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/quipu-run/quipu/sdk"
)

func (c *cli) logsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "logs [NAME...] [-f]", Short: "Print what instances of functions printed; of all functions, if none is named"}
	follow := cmd.Flags().BoolP("follow", "f", false, "go on with new lines, also when the node was away meanwhile")
	tail := cmd.Flags().Int("tail", 100, "how many of the last lines, of all functions together")
	colour := cmd.Flags().String("color", "auto", "a colour for each function: auto, on a terminal unless NO_COLOR is set; always; never")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		coloured, err := c.coloured(*colour)
		if err != nil {
			return err
		}
		if *tail < 1 {
			return usage("--tail is %d; it must be at least 1", *tail)
		}
		node, err := c.client()
		if err != nil {
			return err
		}
		for line, err := range node.LogsOf(cmd.Context(), sdk.LogsRequest{Functions: args, Tail: *tail, Follow: *follow}, c.noteBroken()) {
			if err == nil {
				err = c.printLog(line, coloured)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

// noteBroken tells of the first of several attempts in a row that went wrong.
func (c *cli) noteBroken() func(error, time.Duration) {
	return func(err error, wait time.Duration) {
		if wait == sdk.LogsWaitFirst {
			c.note("%v; trying until it is back", err)
		}
	}
}

func (c *cli) coloured(choice string) (bool, error) {
	switch choice {
	case "auto":
		return c.output == "table" && isTerminal(c.out) && os.Getenv("NO_COLOR") == "", nil
	case "always", "never":
		return choice == "always", nil
	}
	return false, usage("--color is %q; it must be auto, always or never", choice)
}

func (c *cli) printLog(line sdk.LogLine, coloured bool) error {
	if c.output != "table" {
		return json.NewEncoder(c.out).Encode(line)
	}
	who := printable(cmp.Or(line.Instance, line.Function))
	if coloured {
		who = "\x1b[" + colourOf(line.Function) + "m" + who + "\x1b[0m"
	}
	_, err := fmt.Fprintf(c.out, "%s %s %s %s\n", line.Time.Format("15:04:05.000"), who, line.Stream, printable(line.Text))
	return err
}

// functionColours can be told apart on a dark and on a light ground; red is left to errors.
var functionColours = [...]string{"36", "33", "35", "32", "34", "96", "93", "95", "92", "94"}

// colourOf is the same for a function in every session.
func colourOf(function string) string {
	h := fnv.New32a()
	h.Write([]byte(function)) // never fails
	return functionColours[h.Sum32()%uint32(len(functionColours))]
}
