package patterns

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

type order struct {
	ID       string   `json:"id"`
	Article  string   `json:"article"`
	Pieces   int      `json:"pieces"`
	Cents    int      `json:"cents"`
	Customer string   `json:"customer"`
	Country  string   `json:"country"`
	State    string   `json:"state"`
	Done     []string `json:"done"`
	History  []string `json:"history"`
}

// Of 200 orders some are refused at each step, and everything is killed meanwhile. In the end each is completed or cancelled, its
// history has each step and each compensation once, and shelves and accounts add up to what there was.
func TestSagaNoOrderIsHalfDone(t *testing.T) {
	t.Parallel()
	needs(t, "python3")
	const orders = 200
	rng := random(t)
	n := start(t, example(t, "saga"))
	stock := map[string]int{"tea": 1000, "hat": 1000, "alpaca": 5} // there will not be enough alpacas
	accounts := map[string]int{"ada": 1e6, "bo": 1e6, "cy": 1e6, "poor": 500}
	for article, pieces := range stock {
		n.cli("state", "put", "stock/"+article, fmt.Sprint(pieces))
	}
	for customer, cents := range accounts {
		n.cli("state", "put", "account/"+customer, fmt.Sprint(cents))
	}
	bodies := make([]string, orders)
	for i := range bodies {
		bodies[i] = fmt.Sprintf(`{"id": "%d", "article": %q, "pieces": %d, "cents": %d, "customer": %q, "country": %q}`, i,
			[]string{"tea", "hat", "alpaca"}[i%3], 1+rng.IntN(3), 100+rng.IntN(300),
			[]string{"ada", "bo", "cy", "poor"}[i/3%4], []string{"PE", "BO", "AQ", "EC", "CL"}[i%5])
	}

	killing := n.chaos(rng)
	inParallel(orders, func(i int) {
		if a := n.send(fmt.Sprint("order-", i), "POST", "/orders", bodies[i]); a.status != http.StatusOK {
			t.Errorf("order %d: %d %s", i, a.status, a.body)
		}
	})
	all := make([]order, orders)
	for i := range all {
		all[i] = n.order(i)
	}
	killing.end()

	refused := map[string]int{} // by step
	for i := range orders {
		o := all[i]
		wantHistory(t, o)
		parcel := ""
		if refusal := slices.IndexFunc(o.History, isRefusal); refusal >= 0 {
			step, _, _ := strings.Cut(o.History[refusal], " ")
			refused[step]++
		} else {
			stock[o.Article] -= o.Pieces
			accounts[o.Customer] -= o.Cents
			parcel = fmt.Sprintf(`{"article": %q, "pieces": %d, "country": %q}`, o.Article, o.Pieces, o.Country)
		}
		n.wantState("parcel/"+o.ID, parcel)
	}
	t.Logf("refused: %v", refused)
	if len(refused) != 3 {
		t.Errorf("refused at %v, want each of the three steps", refused)
	}
	for article, pieces := range stock {
		n.wantState("stock/"+article, fmt.Sprint(pieces))
	}
	for customer, cents := range accounts {
		n.wantState("account/"+customer, fmt.Sprint(cents))
	}
}

// order waits until one has ended.
func (n *node) order(i int) (o order) {
	n.t.Helper()
	eventually(n.t, fmt.Sprintf("order %d is completed or cancelled", i), func() bool {
		o = want[order](n.t, n.get(fmt.Sprint("/orders/", i)))
		return o.State == "completed" || o.State == "cancelled"
	})
	return o
}

func isRefusal(line string) bool { return strings.Contains(line, " refused: ") }

// wantHistory holds the history of an order against its end: all steps once, or as many as went well and the same in reverse.
func wantHistory(t *testing.T, o order) {
	t.Helper()
	steps := []string{"stock", "payment", "shipping"}
	refusal := slices.IndexFunc(o.History, isRefusal)
	var wants []string
	for _, step := range steps[:max(refusal, 0)] {
		wants = append(wants, step+" done")
	}
	if refusal < 0 {
		wants = []string{"stock done", "payment done", "shipping done"}
	} else {
		wants = append(wants, o.History[refusal])
		for _, step := range slices.Backward(steps[:refusal]) {
			wants = append(wants, step+" undone")
		}
	}
	wantState := map[bool]string{true: "completed", false: "cancelled"}[refusal < 0]
	if !slices.Equal(o.History, wants) || o.State != wantState {
		t.Errorf("order %s is %s by %q, want %s by %q", o.ID, o.State, o.History, wantState, wants)
	}
}
