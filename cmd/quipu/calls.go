package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

func (c *cli) callCommands() []*cobra.Command {
	calls := &cobra.Command{Use: "calls [NAME]", Short: "List calls, the newest first", Args: cobra.MaximumNArgs(1)}
	limit := calls.Flags().Int("limit", 20, "at most so many")
	calls.RunE = func(cmd *cobra.Command, args []string) error {
		return c.listCalls(cmd, strings.Join(args, ""), *limit)
	}
	get := &cobra.Command{Use: "get ID [--trace]", Short: "Show all that one call did", Args: cobra.ExactArgs(1)}
	traced := get.Flags().Bool("trace", false, "show its timeline instead, if the node still remembers it")
	get.RunE = func(cmd *cobra.Command, args []string) error {
		node, err := c.client()
		if err != nil {
			return err
		}
		if *traced {
			t, err := node.Trace(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.showTrace(t)
		}
		call, err := getCallView(cmd.Context(), node, args[0])
		if err != nil {
			return err
		}
		return c.showOne(call)
	}
	calls.AddCommand(get)
	calls.AddCommand(&cobra.Command{Use: "result ID", Short: "Print what a call was answered with", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		return c.callResult(cmd, args[0])
	}})
	calls.AddCommand(&cobra.Command{Use: "cancel ID", Short: "End a call that nobody waits for", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		node, err := c.client()
		if err != nil {
			return err
		}
		call, err := node.CancelCall(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return c.accepted(sdk.Accepted{ID: call.ID, Status: call.State})
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
	return c.list(tableOf("ID\tFUNCTION\tTRIGGER\tREQUEST\tSTATE\tSTATUS\tRUNS\tTIME\tSTART", calls, func(i quipu.CallInfo) []any {
		return []any{i.ID, i.Function, i.Trigger, i.Method + " " + i.Path, i.State, i.Status, i.Runs,
			time.Duration(i.Micros) * time.Microsecond, i.Start.Format(time.RFC3339)}
	}))
}

// shown is a failure that its user has seen: the reply of a call, which is printed, or the end of an application.
type shown string

func (s shown) Error() string { return string(s) }

func (c *cli) callCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "call NAME [-d DATA | -f FILE] [--async] [--trace]", Short: "Call a function: POST to / and print the reply", Args: cobra.ExactArgs(1), SuggestFor: []string{"invoke"}}
	data := cmd.Flags().StringP("data", "d", "", "the body")
	file := cmd.Flags().StringP("file", "f", "", "a file with the body, - for stdin")
	revision := cmd.Flags().String("revision", "", "call this one, by number, name or alias; default: what the traffic split says")
	async := cmd.Flags().Bool("async", false, "do not wait for the reply: print the call's id as soon as it is durable")
	key := cmd.Flags().String("key", "", "an idempotency key: asked again with it, the call is not made again")
	traced := cmd.Flags().Bool("trace", false, "print the call's timeline to stderr")
	cmd.MarkFlagsMutuallyExclusive("data", "file")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		body, err := c.input([]byte(*data), *file)
		if err != nil {
			return err
		}
		header, trace := headerOf(body, *key, *revision), ""
		if *traced {
			trace = traceRequest(header)
		}
		if *async {
			return c.callAsync(cmd, args[0], header, body)
		}
		return c.call(cmd, args[0], header, body, trace)
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

func headerOf(body []byte, key, revision string) http.Header {
	h := http.Header{"Content-Type": {"text/plain; charset=utf-8"}}
	if json.Valid(body) {
		h.Set("Content-Type", "application/json")
	}
	if key != "" {
		h.Set(quipu.HeaderIdempotency, key)
	}
	if revision != "" {
		h.Set(quipu.HeaderRevision, revision)
	}
	return h
}

func (c *cli) call(cmd *cobra.Command, name string, header http.Header, body []byte, trace string) error {
	node, err := c.client()
	if err != nil {
		return err
	}
	err = c.slow("waiting for "+name, func() error {
		resp, err := node.Invoke(cmd.Context(), name, http.MethodPost, "/", header, bytes.NewReader(body))
		if err != nil {
			return err
		}
		return c.printReply(name, resp)
	})
	if trace != "" {
		err = errors.Join(err, c.noteTrace(cmd, node, trace)) // also of a call that failed
	}
	return err
}

// printReply prints what a function answered, and fails if that is a failure.
func (c *cli) printReply(name string, resp *http.Response) error {
	defer resp.Body.Close()
	if _, err := io.Copy(c.out, resp.Body); err != nil {
		return fmt.Errorf("the reply broke off: %w", err)
	}
	if resp.StatusCode >= 400 {
		c.note("%s answered %s; call %s", name, resp.Status, resp.Header.Get(quipu.HeaderCallID))
		return shown("the function answered " + resp.Status)
	}
	return nil
}

func (c *cli) callAsync(cmd *cobra.Command, name string, header http.Header, body []byte) error {
	node, err := c.client()
	if err != nil {
		return err
	}
	a, err := node.InvokeAsync(cmd.Context(), name, http.MethodPost, "/", header, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if header.Get(quipu.HeaderTrace) != "" {
		c.note("quipu calls get %s --trace shows its timeline, as far as it has come", a.ID)
	}
	return c.accepted(a)
}

// accepted prints the id of a call, which scripts go on with.
func (c *cli) accepted(a sdk.Accepted) error {
	if c.output != "table" {
		return c.show(a)
	}
	_, err := fmt.Fprintln(c.out, a.ID)
	return err
}

func (c *cli) callResult(cmd *cobra.Command, id string) error {
	node, err := c.client()
	if err != nil {
		return err
	}
	resp, err := node.CallResult(cmd.Context(), id)
	if err != nil {
		return err
	}
	return c.printReply("the function", resp)
}
