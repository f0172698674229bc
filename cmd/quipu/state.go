package main

import (
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

func (c *cli) stateCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "state", Short: "Read and write state"}
	store := cmd.PersistentFlags().String("store", "", "statestore, shared, or a Dapr component's as state:NAME or state:NAME:PREFIX; default: statestore with --as, else shared")
	as := cmd.PersistentFlags().String("as", "", "the function whose keys statestore means")
	return c.withKeys(cmd, func(node *sdk.Client) sdk.State {
		name := *store
		if name == "" {
			name = map[bool]string{true: quipu.StoreDefault, false: quipu.StoreShared}[*as != ""]
		}
		return node.State(name, *as)
	})
}

func (c *cli) configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Read and write a configuration store; applications that subscribed are told"}
	store := cmd.PersistentFlags().String("store", "configstore", "the Dapr component")
	return c.withKeys(cmd, func(node *sdk.Client) sdk.State { return node.State("configuration:"+*store, "") })
}

// withKeys gives a command the verbs of keys. of is called once the flags are read.
func (c *cli) withKeys(cmd *cobra.Command, of func(*sdk.Client) sdk.State) *cobra.Command {
	open := func() (sdk.State, error) {
		node, err := c.client()
		if err != nil {
			return sdk.State{}, err
		}
		return of(node), nil
	}
	cmd.AddCommand(c.stateGet(open), c.statePut(open), c.stateRemove(open), c.stateList(open))
	return cmd
}

func (c *cli) stateGet(open func() (sdk.State, error)) *cobra.Command {
	return &cobra.Command{Use: "get KEY", Short: "Print the value of a key", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		state, err := open()
		if err != nil {
			return err
		}
		item, err := state.Get(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if c.output != "table" {
			return c.show(stateValue(item))
		}
		if _, err := c.out.Write(item.Value); err != nil {
			return err
		}
		if isTerminal(c.out) {
			c.note("") // the prompt on a line of its own
		}
		return nil
	}}
}

func (c *cli) statePut(open func() (sdk.State, error)) *cobra.Command {
	cmd := &cobra.Command{Use: "put KEY [VALUE | -f FILE]", Short: "Write a key", Args: cobra.RangeArgs(1, 2)}
	file := cmd.Flags().StringP("file", "f", "", "a file with the value, - for stdin")
	ttl := cmd.Flags().Duration("ttl", 0, "time to live")
	etag := cmd.Flags().String("etag", "", "only if the key's etag is this")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if (len(args) == 2) == (*file != "") {
			return usage("give either a value or -f FILE")
		}
		value := []byte(nil)
		if len(args) == 2 {
			value = []byte(args[1])
		}
		value, err := c.input(value, *file)
		if err != nil {
			return err
		}
		state, err := open()
		if err != nil {
			return err
		}
		return state.Apply(cmd.Context(), quipu.Change{Key: args[0], Value: value, TTL: *ttl, ETag: *etag})
	}
	return cmd
}

func (c *cli) stateRemove(open func() (sdk.State, error)) *cobra.Command {
	return &cobra.Command{Use: "rm KEY", Short: "Delete a key", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		if err := c.sure("delete the key " + args[0]); err != nil {
			return err
		}
		state, err := open()
		if err != nil {
			return err
		}
		return state.Apply(cmd.Context(), quipu.Change{Key: args[0], Delete: true})
	}}
}

func (c *cli) stateList(open func() (sdk.State, error)) *cobra.Command {
	cmd := &cobra.Command{Use: "ls [PREFIX]", Short: "List keys", Args: cobra.MaximumNArgs(1)}
	limit := cmd.Flags().Int("limit", 1000, "at most so many, up to 1000")
	after := cmd.Flags().String("after", "", "only greater keys")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		state, err := open()
		if err != nil {
			return err
		}
		r := quipu.ListRequest{After: *after, Limit: *limit}
		if len(args) == 1 {
			r.Prefix = args[0]
		}
		page, err := state.List(cmd.Context(), r)
		if err != nil {
			return err
		}
		if page.Next != "" {
			c.note("there are more: --after %q", page.Next)
		}
		return c.list(tableOf("KEY\tSIZE\tETAG\tEXPIRES", page.Items, func(i sdk.Item) []any {
			expires := "never"
			if !i.Expires.IsZero() {
				expires = i.Expires.Format(time.RFC3339)
			}
			return []any{i.Key, i.Size, i.ETag, expires}
		}))
	}
	return cmd
}

// stateValue shows a value as text if it is text, else as base64 under another name.
func stateValue(item quipu.Item) map[string]any {
	out := map[string]any{"key": item.Key, "etag": item.ETag}
	if utf8.Valid(item.Value) {
		out["value"] = string(item.Value)
	} else {
		out["base64"] = item.Value
	}
	return out
}
