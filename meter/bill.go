package meter

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/view"
)

// usageRowsMax bounds the rows of one answer.
const usageRowsMax = 100_000

// Usage lists what was taken in days, by day and function.
func (v *View) Usage(_ context.Context, from, to string) ([]quipu.DayUsage, error) {
	for _, day := range []string{from, to} {
		if when, err := time.Parse(dayForm, day); err != nil || when.Format(dayForm) != day {
			return nil, usage("%.40q is not a day; write it as %s", day, dayForm)
		}
	}
	if to < from {
		return nil, usage("%s is before %s", to, from)
	}
	list := []quipu.DayUsage{}
	err := v.look(func(tx *view.Tx) error {
		return eachRow(tx, dayPrefix+from+"/", dayPrefix+to+"0", func(key string, u quipu.Usage) bool { // 0 follows /
			day, function, _ := strings.Cut(key[len(dayPrefix):], "/")
			list = append(list, quipu.DayUsage{Day: day, FunctionUsage: quipu.FunctionUsage{Function: function, Usage: u}})
			return len(list) <= usageRowsMax
		})
	})
	if len(list) > usageRowsMax {
		return nil, usage("the days from %s to %s have more than %d rows; ask for fewer days", from, to, usageRowsMax)
	}
	return list, err
}

// look reads at one snapshot.
func (v *View) look(read func(tx *view.Tx) error) error {
	tx := v.book.Look()
	err := read(tx)
	return errors.Join(err, tx.Close())
}

// eachRow visits usages by key, until visit says false.
func eachRow(tx *view.Tx, from, to string, visit func(key string, u quipu.Usage) bool) error {
	var bad error
	err := tx.Peek(Name, from, to, func(key string, value []byte) bool {
		var u quipu.Usage
		if u, bad = decodeUsage(value); bad != nil {
			bad = fmt.Errorf("usage %q: %w", key, bad)
			return false
		}
		return visit(key, u)
	})
	return errors.Join(err, bad)
}

// Bill is what a month costs.
func (v *View) Bill(_ context.Context, month, by string) (b quipu.Bill, err error) {
	now := v.o.Clock.Now().UTC().Format(monthForm)
	month, by = cmp.Or(month, now), cmp.Or(by, quipu.ByFunction)
	if when, err := time.Parse(monthForm, month); err != nil || when.Format(monthForm) != month {
		return b, usage("%.40q is not a month; write it as %s", month, monthForm)
	}
	if by != quipu.ByFunction && by != quipu.ByDay {
		return b, usage("a bill is by %s or by %s, not by %.40q", quipu.ByFunction, quipu.ByDay, by)
	}
	err = v.look(func(tx *view.Tx) error {
		if b, err = v.bill(tx, month, by); err == nil && month == now {
			b.Budgets, err = standing(tx, month)
		}
		return err
	})
	return b, err
}

func (v *View) bill(tx *view.Tx, month, by string) (quipu.Bill, error) {
	b := quipu.Bill{Month: month, By: by, Rows: []quipu.BillRow{}, Budgets: []quipu.BudgetStatus{}}
	t, err := tariffOf(tx)
	if err != nil {
		return b, err
	}
	b.Currency = t.prices.Currency
	sums := map[string]quipu.Usage{}
	prefix, keyOf := monthPrefix+month+"/", func(key string) string { return key[len(monthPrefix+month+"/"):] }
	end := monthPrefix + month + "0"
	if by == quipu.ByDay {
		prefix, end = dayPrefix+month+"-", dayPrefix+month+"."
		keyOf = func(key string) string { return key[len(dayPrefix) : len(dayPrefix)+len(dayForm)] }
	}
	err = eachRow(tx, prefix, end, func(key string, u quipu.Usage) bool {
		sum := sums[keyOf(key)]
		sum.Add(u)
		sums[keyOf(key)] = sum
		return true
	})
	for key, u := range sums {
		row := t.row(key, u)
		b.Rows = append(b.Rows, row)
		b.Usage.Add(u)
		b.Total = plus(b.Total, row.Amount)
	}
	slices.SortFunc(b.Rows, func(a, b quipu.BillRow) int { return strings.Compare(a.Key, b.Key) })
	return b, err
}

// tariffOf are the prices of the namespace, or the default ones.
func tariffOf(tx *view.Tx) (tariff, error) {
	prices := DefaultPrices()
	value, set, err := tx.Get(Name, pricesKey)
	if err != nil {
		return tariff{}, err
	}
	if set {
		prices = quipu.Prices{}
		if err := json.Unmarshal(value, &prices); err != nil {
			return tariff{}, fmt.Errorf("prices: %w", err)
		}
	}
	return newTariff(prices)
}

// Prices are those of the namespace, or the default ones.
func (v *View) Prices(context.Context) (p quipu.Prices, err error) {
	err = v.look(func(tx *view.Tx) error {
		t, err := tariffOf(tx)
		p = t.prices
		return err
	})
	return p, err
}

// SetPrices replaces all prices.
func (v *View) SetPrices(ctx context.Context, p quipu.Prices) error {
	if _, err := newTariff(p); err != nil {
		return err
	}
	body, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return v.change(ctx, func(tx *view.Tx) error {
		tx.Put(Name, pricesKey, body)
		return do(tx, append([]byte{opPrices}, body...))
	})
}

func do(tx *view.Tx, body []byte) error { return tx.Do(quipu.Op{View: Name, Body: body}) }

// change commits, and looks what that makes of the budgets.
func (v *View) change(ctx context.Context, change func(*view.Tx) error) error {
	if _, err := v.book.Change(ctx, change); err != nil {
		return err
	}
	return v.judge()
}
