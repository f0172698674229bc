package fake

import (
	"context"
	"fmt"
	"sync"

	"github.com/quipu-run/quipu"
)

// billing knows one bill, and keeps what it is told.
type billing struct {
	mu      sync.Mutex
	prices  quipu.Prices
	budgets []quipu.BudgetStatus
}

func (b *billing) Usage(context.Context, string, string) ([]quipu.DayUsage, error) {
	return []quipu.DayUsage{{Day: "2026-01-02", FunctionUsage: quipu.FunctionUsage{Function: "hello", Usage: billed}}}, nil
}

var billed = quipu.Usage{Calls: 3, Runs: 3, BilledMillis: 12, MemoryMB: 128, MemoryMBMillis: 1536}

func (b *billing) Bill(ctx context.Context, month, by string) (quipu.Bill, error) {
	list, err := b.Budgets(ctx)
	line := quipu.BillLine{Item: "perMillionCalls", Quantity: 3, Unit: "calls", Price: "1", Amount: 3}
	return quipu.Bill{Month: month, By: by, Currency: "EUR", Usage: billed, Total: 3, Budgets: list,
		Rows: []quipu.BillRow{{Key: "hello", Usage: billed, Lines: []quipu.BillLine{line}, Amount: 3}}}, err
}

func (b *billing) Prices(context.Context) (quipu.Prices, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.prices, nil
}

func (b *billing) SetPrices(_ context.Context, p quipu.Prices) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.prices = p
	return nil
}

func (b *billing) Budgets(context.Context) ([]quipu.BudgetStatus, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]quipu.BudgetStatus{}, b.budgets...), nil
}

func (b *billing) SetBudget(_ context.Context, budget quipu.Budget) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.budgets = append(b.budgets, quipu.BudgetStatus{Budget: budget, Warned: []int{}})
	return nil
}

func (b *billing) RemoveBudget(_ context.Context, function string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, s := range b.budgets {
		if s.Function == function {
			b.budgets = append(b.budgets[:i:i], b.budgets[i+1:]...)
			return nil
		}
	}
	return &quipu.Error{Code: quipu.CodeNotFound, Op: "budget.remove", Text: fmt.Sprintf("there is no budget of %q", function)}
}
