package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

const addressDefault = "127.0.0.1:8080"

// cli is what all verbs share.
type cli struct {
	in        io.Reader
	out, err  io.Writer
	node      string
	token     string
	namespace string
	output    string
	yes       bool
	ran       bool // the command line was understood
}

func (c *cli) checkOutput() error {
	switch c.output {
	case "table", "json", "yaml":
		return nil
	}
	return usage("-o is %q; it must be table, json or yaml", c.output)
}

func usage(format string, args ...any) error {
	return &quipu.Error{Code: quipu.CodeUsage, Text: fmt.Sprintf(format, args...)}
}

// client is of the node that flags, environment or folder name.
func (c *cli) client() (*sdk.Client, error) {
	address := c.node
	if address == "" {
		address = nodeAbove(".")
	}
	if address == "" {
		address = addressDefault
	}
	token := c.token
	if token == "" {
		token = os.Getenv("QUIPU_TOKEN")
	}
	return sdk.New(sdk.Options{URL: address, Token: token, Namespace: c.namespace})
}

// nodeAbove is the address in the nearest .quipu/node.json, "" if there is none that can be read.
func nodeAbove(dir string) string {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return ""
	}
	for {
		var n sdk.Node
		text, err := os.ReadFile(filepath.Join(dir, ".quipu", "node.json"))
		if err == nil && json.Unmarshal(text, &n) == nil && n.HTTP != "" {
			return n.HTTP
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return ""
		}
		dir = parent
	}
}

// table is a listing: what people see of items, which are what programs get.
type table struct {
	head  string // tab separated
	rows  [][]any
	items any
}

func tableOf[T any](head string, items []T, row func(T) []any) table {
	if items == nil {
		items = []T{}
	}
	t := table{head: head, items: items}
	for _, item := range items {
		t.rows = append(t.rows, row(item))
	}
	return t
}

// pages reads a listing to its end, or until there are as many as are wanted; 0 means all. next reads the page that follows the last one, of
// at most limit items, and tells whether there are more.
func pages[T any](wanted, pageMax int, next func(limit int) (items []T, more bool, err error)) (all []T, err error) {
	for {
		limit := pageMax
		if wanted > 0 {
			limit = min(limit, wanted-len(all))
		}
		items, more, err := next(limit)
		if err != nil {
			return nil, err
		}
		if all = append(all, items...); !more || wanted > 0 && len(all) >= wanted {
			return all, nil
		}
	}
}

// list prints a table in the form that was asked for.
func (c *cli) list(t table) error {
	if c.output != "table" {
		return c.show(t.items)
	}
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, t.head)
	for _, row := range t.rows {
		cells := make([]string, len(row))
		for i, v := range row {
			cells[i] = printable(fmt.Sprint(v))
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	return w.Flush()
}

// printable keeps what comes from outside on its line and out of the terminal's control.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '·'
		}
		return r
	}, s)
}

// show prints one value, as YAML unless JSON was asked for.
func (c *cli) show(v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err == nil && c.output != "json" {
		text, err = yamlOf(text)
	}
	if err != nil {
		return err
	}
	_, err = c.out.Write(append(bytes.TrimRight(text, "\n"), '\n'))
	return err
}

// yamlOf keeps the order of fields, which a map would lose.
func yamlOf(text []byte) ([]byte, error) {
	var n yaml.Node
	if err := yaml.Unmarshal(text, &n); err != nil { // JSON is YAML
		return nil, err
	}
	block(&n)
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	err := enc.Encode(&n)
	return out.Bytes(), err
}

func block(n *yaml.Node) {
	n.Style &^= yaml.FlowStyle
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
		n.Style = 0
	}
	for _, child := range n.Content {
		block(child)
	}
}

// note is for people: it goes to stderr.
func (c *cli) note(format string, args ...any) { fmt.Fprintf(c.err, format+"\n", args...) }

// slow notes what is going on if do takes over a second.
func (c *cli) slow(what string, do func() error) error {
	timer := time.AfterFunc(time.Second, func() { c.note("%s …", what) })
	defer timer.Stop()
	return do()
}

// paint colours text on a terminal.
func (c *cli) paint(text, colour string) string {
	if !isTerminal(c.err) || os.Getenv("NO_COLOR") != "" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// sure wants --yes, or a yes from a terminal.
func (c *cli) sure(what string) error {
	if c.yes {
		return nil
	}
	if in, ok := c.in.(*os.File); ok && isTerminal(in) {
		fmt.Fprintf(c.err, "%s? [y/N] ", what)
		var reply string
		if _, err := fmt.Fscanln(in, &reply); err == nil && strings.EqualFold(reply, "y") {
			return nil
		}
	}
	return &quipu.Error{Code: quipu.CodeUsage, Text: what + " needs a yes", Hint: "add --yes"}
}
