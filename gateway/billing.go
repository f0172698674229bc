package gateway

import (
	"cmp"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

func billingRoutes() []adminRoute {
	bad := []quipu.Code{quipu.CodeUsage}
	return []adminRoute{
		{id: "listUsage", method: "GET", path: "/usage", summary: "What was taken, by day (of UTC) and function; function is empty for the namespace itself. The newest second may be missing.",
			query:  []param{{"from", "string", "the first day, as 2026-11-01; default: today"}, {"to", "string", "the last day; default: today"}},
			status: 200, reply: jsonType, shape: sdk.Page[quipu.DayUsage]{}, codes: bad, serve: listUsage},
		{id: "getBill", method: "GET", path: "/bill", summary: "What a month costs. Each line is rounded once, half up, to a millionth; sums are of lines.",
			query:  []param{{"month", "string", "as 2026-11, of UTC; default: this one"}, {"by", "string", "what a row is: function (default) or day"}},
			status: 200, reply: jsonType, shape: quipu.Bill{}, codes: bad, serve: getBill},
		{id: "getPrices", method: "GET", path: "/prices", summary: "The prices of the namespace.",
			status: 200, reply: jsonType, shape: quipu.Prices{}, serve: getPrices},
		{id: "setPrices", method: "PUT", path: "/prices", summary: "Replace all prices. They count for all bills, those of past months included.",
			body: jsonType, takes: quipu.Prices{}, status: 204, codes: bad, serve: setPrices},
		{id: "listBudgets", method: "GET", path: "/budgets", summary: "Budgets, and how they stand this month, by function.",
			status: 200, reply: jsonType, shape: sdk.Page[quipu.BudgetStatus]{}, serve: listBudgets},
		{id: "setBudget", method: "PUT", path: "/budgets", summary: "Make a budget, or replace the one of its function; without a function it is the namespace's.",
			body: jsonType, takes: quipu.Budget{}, status: 204, codes: []quipu.Code{quipu.CodeUsage, quipu.CodeTooMany}, serve: setBudget},
		{id: "removeBudget", method: "DELETE", path: "/budgets", summary: "Remove a budget.",
			query:  []param{{"function", "string", "whose; default: the namespace's"}},
			status: 204, codes: []quipu.Code{quipu.CodeNotFound}, serve: removeBudget},
	}
}

func listUsage(a *ask) error {
	today := time.Now().UTC().Format(time.DateOnly)
	list, err := a.ns.Usage(a.Context(), cmp.Or(a.query.Get("from"), today), cmp.Or(a.query.Get("to"), today))
	if err != nil {
		return err
	}
	return a.reply(page(list))
}

func getBill(a *ask) error {
	bill, err := a.ns.Bill(a.Context(), a.query.Get("month"), a.query.Get("by"))
	if err != nil {
		return err
	}
	return a.reply(bill)
}

func getPrices(a *ask) error {
	prices, err := a.ns.Prices(a.Context())
	if err != nil {
		return err
	}
	return a.reply(prices)
}

func setPrices(a *ask) error {
	var prices quipu.Prices
	if err := a.object(&prices); err != nil {
		return err
	}
	return a.done(a.ns.SetPrices(a.Context(), prices))
}

func listBudgets(a *ask) error {
	list, err := a.ns.Budgets(a.Context())
	if err != nil {
		return err
	}
	return a.reply(page(list))
}

func setBudget(a *ask) error {
	budget := quipu.Budget{Warn: quipu.BudgetWarnDefault}
	if err := a.object(&budget); err != nil {
		return err
	}
	return a.done(a.ns.SetBudget(a.Context(), budget))
}

func removeBudget(a *ask) error {
	return a.done(a.ns.RemoveBudget(a.Context(), a.query.Get("function")))
}
