package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quipu-run/quipu"
)

func (c *cli) callCommands() []*cobra.Command {
	calls := &cobra.Command{Use: "calls [NAME]", Short: "List calls, the newest first", Args: cobra.MaximumNArgs(1)}
	limit := calls.Flags().Int("limit", 20, "at most so many")
	calls.RunE = func(cmd *cobra.Command, args []string) error {
		return c.listCalls(cmd, strings.Join(args, ""), *limit)
	}
	calls.AddCommand(&cobra.Command{Use: "get ID", Short: "Show all that one call did", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		node, err := c.client()
		if err != nil {
			return err
		}
		call, err := getCallView(cmd.Context(), node, args[0])
		if err != nil {
			return err
		}
		return c.showOne(call)
	}})
	return []*cobra.Command{c.callCommand(), calls, c.logsCommand()}
}

func (c *cli) listCalls(cmd *cobra.Command, name string, limit int) error {
	node, err := c.client()
	if err != nil {
		return err
	}
	calls, err := node.Calls(cmd.Context(), name, limit)
	if err != nil {
		return err
	}
	return c.list(tableOf("ID\tFUNCTION\tTRIGGER\tREQUEST\tSTATUS\tRUNS\tTIME\tSTART", calls, func(i quipu.CallInfo) []any {
		return []any{i.ID, i.Function, i.Trigger, i.Method + " " + i.Path, i.Status, i.Runs,
			time.Duration(i.Micros) * time.Microsecond, i.Start.Format(time.RFC3339)}
	}))
}

// shown is a failure that its user has seen: the reply of a call, which is printed, or the end of an application.
type shown string

func (s shown) Error() string { return string(s) }

func (c *cli) callCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "call NAME [-d DATA | -f FILE]", Short: "Call a function: POST to / and print the reply", Args: cobra.ExactArgs(1), SuggestFor: []string{"invoke"}}
	data := cmd.Flags().StringP("data", "d", "", "the body")
	file := cmd.Flags().StringP("file", "f", "", "a file with the body, - for stdin")
	revision := cmd.Flags().String("revision", "", "call this one, by number, name or alias; default: what the traffic split says")
	cmd.MarkFlagsMutuallyExclusive("data", "file")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		body, err := c.input([]byte(*data), *file)
		if err != nil {
			return err
		}
		return c.call(cmd, args[0], *revision, body)
	}
	return cmd
}

// input is data, or what file has.
func (c *cli) input(data []byte, file string) ([]byte, error) {
	switch file {
	case "":
		return data, nil
	case "-":
		return io.ReadAll(io.LimitReader(c.in, 64<<20+1))
	}
	return os.ReadFile(file)
}

func (c *cli) call(cmd *cobra.Command, name, revision string, body []byte) error {
	node, err := c.client()
	if err != nil {
		return err
	}
	kind := "text/plain; charset=utf-8"
	if json.Valid(body) {
		kind = "application/json"
	}
	header := http.Header{"Content-Type": {kind}}
	if revision != "" {
		header.Set(quipu.HeaderRevision, revision)
	}
	return c.slow("waiting for "+name, func() error {
		resp, err := node.Invoke(cmd.Context(), name, http.MethodPost, "/", header, bytes.NewReader(body))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if _, err := io.Copy(c.out, resp.Body); err != nil {
			return fmt.Errorf("the reply broke off: %w", err)
		}
		if resp.StatusCode >= 400 {
			c.note("%s answered %s; call %s", name, resp.Status, resp.Header.Get(quipu.HeaderCallID))
			return shown("the function answered " + resp.Status)
		}
		return nil
	})
}

func (c *cli) logsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "logs NAME [-f]", Short: "Print what instances of a function printed", Args: cobra.ExactArgs(1)}
	follow := cmd.Flags().BoolP("follow", "f", false, "go on with new lines")
	tail := cmd.Flags().Int("tail", 100, "how many of the last lines")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		node, err := c.client()
		if err != nil {
			return err
		}
		for line, err := range node.Logs(cmd.Context(), args[0], *tail, *follow) {
			if err != nil {
				return err
			}
			if c.output == "table" {
				_, err = fmt.Fprintf(c.out, "%s %s %s %s\n", line.Time.Format("15:04:05.000"), line.Instance, line.Stream, printable(line.Text))
			} else {
				err = json.NewEncoder(c.out).Encode(line)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}
