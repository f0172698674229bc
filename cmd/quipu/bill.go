package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/quipu-run/quipu"
)

func (c *cli) billCommand() *cobra.Command {
	var month, by string
	bill := &cobra.Command{Use: "bill", Short: "Show what a month costs", Args: cobra.NoArgs,
		Example: "  quipu bill --month 2026-11 --by day",
		RunE: func(cmd *cobra.Command, _ []string) error {
			node, err := c.client()
			if err != nil {
				return err
			}
			b, err := node.Bill(cmd.Context(), month, by)
			if err != nil {
				return err
			}
			return c.showBill(b)
		}}
	bill.Flags().StringVar(&month, "month", "", "the month of UTC, as 2026-11 (default this one)")
	bill.Flags().StringVar(&by, "by", quipu.ByFunction, "what a row is: function or day")
	bill.AddCommand(c.pricesCommand())
	return bill
}

const namespaceRow = "(namespace)"

func rowName(key string) string {
	if key == "" {
		return namespaceRow
	}
	return key
}

// showBill prints the rows, their sum, and for people also what budgets say.
func (c *cli) showBill(b quipu.Bill) error {
	if c.output != "table" {
		return c.show(b)
	}
	rows := append([]quipu.BillRow{}, b.Rows...)
	rows = append(rows, quipu.BillRow{Key: "TOTAL", Usage: b.Usage, Amount: b.Total})
	t := tableOf(strings.ToUpper(b.By)+"\tCALLS\tERRORS\tBILLED-MS\tMB-MS\tCPU-µS\tBYTES-IN\tBYTES-OUT\tAPPENDS\tBYTE-HOURS\t"+b.Currency, rows, func(r quipu.BillRow) []any {
		u := r.Usage
		return []any{rowName(r.Key), u.Calls, u.Errors, u.BilledMillis, u.MemoryMBMillis, u.CPUMicros, u.BytesIn, u.BytesOut, u.LogAppends, u.StoredByteHours, r.Amount}
	})
	if err := c.list(t); err != nil {
		return err
	}
	for _, s := range b.Budgets {
		c.note("%s", budgetText(s))
	}
	return nil
}

func budgetText(s quipu.BudgetStatus) string {
	text := fmt.Sprintf("budget of %s: %s of %s spent (%d%%)", rowName(s.Function), s.Spent, s.Amount, s.Percent)
	switch {
	case s.Stopped:
		return text + ", calls from outside are stopped until the month ends"
	case s.Percent >= 100:
		return text + ", used up"
	case s.Percent >= int64(s.Warn):
		return text + fmt.Sprintf(", over the %d%% at which it warns", s.Warn)
	}
	return text
}

func (c *cli) pricesCommand() *cobra.Command {
	prices := &cobra.Command{Use: "prices", Short: "Print the prices of the namespace, as a file that can be changed and set", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			node, err := c.client()
			if err != nil {
				return err
			}
			p, err := node.Prices(cmd.Context())
			if err != nil {
				return err
			}
			return c.show(p)
		}}
	prices.AddCommand(&cobra.Command{Use: "set FILE", Short: "Replace the prices of the namespace by those of a file; - is stdin", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := c.readPrices(args[0])
			if err != nil {
				return err
			}
			node, err := c.client()
			if err != nil {
				return err
			}
			return node.SetPrices(cmd.Context(), p)
		}})
	return prices
}

// pricesBytesMax bounds a file of prices.
const pricesBytesMax = 64 << 10

func (c *cli) readPrices(name string) (p quipu.Prices, err error) {
	from := c.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return p, usage("%v", err)
		}
		defer f.Close()
		from = f
	}
	text, err := io.ReadAll(io.LimitReader(from, pricesBytesMax))
	if err != nil {
		return p, err
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&p); err != nil && !errors.Is(err, io.EOF) {
		return p, usage("%s has no prices: %v", name, err)
	}
	return p, nil
}

func (c *cli) budgetCommand() *cobra.Command {
	budget := &cobra.Command{Use: "budget", Short: "Budgets of functions and of the namespace: what a month may cost"}
	budget.AddCommand(c.setBudgetCommand(),
		&cobra.Command{Use: "ls", Short: "List budgets, and how they stand this month", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				node, err := c.client()
				if err != nil {
					return err
				}
				list, err := node.Budgets(cmd.Context())
				if err != nil {
					return err
				}
				return c.list(tableOf("BUDGET\tAMOUNT\tWARN\tSTOP\tSPENT\tUSED\tSTOPPED", list, budgetRow))
			}},
		&cobra.Command{Use: "rm [FUNCTION]", Short: "Remove the budget of a function, or of the namespace", Args: cobra.MaximumNArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				node, err := c.client()
				if err != nil {
					return err
				}
				return node.RemoveBudget(cmd.Context(), strings.Join(args, ""))
			}})
	return budget
}

func budgetRow(s quipu.BudgetStatus) []any {
	return []any{rowName(s.Function), s.Amount, strconv.Itoa(s.Warn) + "%", s.Stop, s.Spent, strconv.FormatInt(s.Percent, 10) + "%", s.Stopped}
}

func (c *cli) setBudgetCommand() *cobra.Command {
	var amount string
	b := quipu.Budget{}
	set := &cobra.Command{Use: "set [FUNCTION]", Short: "Set what a function, or the namespace, may cost in a month", Args: cobra.MaximumNArgs(1),
		Example: "  quipu budget set stats --amount 10.00 --warn 80 --stop",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := b.Amount.UnmarshalText([]byte(amount)); err != nil {
				return usage("--amount: %v", err)
			}
			node, err := c.client()
			if err != nil {
				return err
			}
			b.Function = strings.Join(args, "")
			return node.SetBudget(cmd.Context(), b)
		}}
	f := set.Flags()
	f.StringVar(&amount, "amount", "", "what a month may cost, in the currency of the prices")
	f.IntVar(&b.Warn, "warn", quipu.BudgetWarnDefault, "percentage at which an event on topic "+quipu.TopicBudgets+" warns")
	f.BoolVar(&b.Stop, "stop", false, "refuse calls from outside when it is used up, until the month ends")
	return set
}
