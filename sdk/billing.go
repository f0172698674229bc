package sdk

import (
	"context"
	"net/http"
	"net/url"

	"github.com/quipu-run/quipu"
)

var _ quipu.Billing = (*Client)(nil)

// Usage is Billing.Usage of the contract, with its errors; a day of "" is today.
func (c *Client) Usage(ctx context.Context, from, to string) ([]quipu.DayUsage, error) {
	p, err := read[Page[quipu.DayUsage]](ctx, c, c.get("/usage", given("from", from, "to", to)))
	return p.Items, err
}

// Bill is Billing.Bill of the contract, with its errors.
func (c *Client) Bill(ctx context.Context, month, by string) (quipu.Bill, error) {
	return read[quipu.Bill](ctx, c, c.get("/bill", given("month", month, "by", by)))
}

// Prices is Billing.Prices of the contract.
func (c *Client) Prices(ctx context.Context) (quipu.Prices, error) {
	return read[quipu.Prices](ctx, c, c.get("/prices", nil))
}

// SetPrices is Billing.SetPrices of the contract, with its errors.
func (c *Client) SetPrices(ctx context.Context, p quipu.Prices) error {
	q, err := asJSON(http.MethodPut, "/prices", p)
	if err != nil {
		return err
	}
	return c.done(ctx, q)
}

// Budgets is Billing.Budgets of the contract.
func (c *Client) Budgets(ctx context.Context) ([]quipu.BudgetStatus, error) {
	p, err := read[Page[quipu.BudgetStatus]](ctx, c, c.get("/budgets", nil))
	return p.Items, err
}

// SetBudget is Billing.SetBudget of the contract, with its errors.
func (c *Client) SetBudget(ctx context.Context, b quipu.Budget) error {
	q, err := asJSON(http.MethodPut, "/budgets", b)
	if err != nil {
		return err
	}
	return c.done(ctx, q)
}

// RemoveBudget is Billing.RemoveBudget of the contract, with its errors.
func (c *Client) RemoveBudget(ctx context.Context, function string) error {
	return c.done(ctx, request{method: http.MethodDelete, path: "/budgets", query: given("function", function)})
}

// given is a query of the names that have values.
func given(pairs ...string) url.Values {
	query := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			query.Set(pairs[i], pairs[i+1])
		}
	}
	return query
}
