package meter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/cloudevent"
	"github.com/quipu-run/quipu/view"
)

// retryAfterMax bounds what callers are told to wait: a budget may be raised at any time.
const retryAfterMax = time.Hour

// stops are the functions that are not to be called, until a time. It is never changed in place.
type stops struct {
	until     time.Time
	functions map[string]bool // "" stops all
}

// Allow refuses calls of a function whose budget, or the namespace's, is used up and stops. It is on the way of every call.
// CodeBudget.
func (v *View) Allow(function string) error {
	s := v.stopped.Load()
	if s == nil || !s.functions[""] && !s.functions[function] {
		return nil
	}
	wait := s.until.Sub(v.o.Clock.Now())
	if wait <= 0 {
		return nil // the month is over; the next look will say so
	}
	whose := "of function " + function
	if s.functions[""] {
		whose = "of the namespace"
	}
	return &quipu.Error{Code: quipu.CodeBudget, Op: "call", RetryAfter: min(wait, retryAfterMax),
		Text: fmt.Sprintf("the budget %s is used up until %s", whose, s.until.Format(time.RFC3339)), Hint: quipu.Codes[quipu.CodeBudget].Next}
}

// standing is how the budgets stand in a month, by function.
func standing(tx *view.Tx, month string) ([]quipu.BudgetStatus, error) {
	list, err := budgetsOf(tx)
	if err != nil || len(list) == 0 {
		return list, err
	}
	t, err := tariffOf(tx)
	if err != nil {
		return nil, err
	}
	spent, all := map[string]quipu.Money{}, quipu.Money(0)
	prefix := monthPrefix + month + "/"
	err = eachRow(tx, prefix, monthPrefix+month+"0", func(key string, u quipu.Usage) bool {
		cost := t.row("", u).Amount
		spent[key[len(prefix):]] = cost
		all = plus(all, cost)
		return true
	})
	spent[""] = all
	for i := range list {
		if err := complete(tx, month, &list[i], spent[list[i].Function]); err != nil {
			return nil, err
		}
	}
	return list, err
}

// complete says how far a budget is used up, and what it has told.
func complete(tx *view.Tx, month string, s *quipu.BudgetStatus, spent quipu.Money) error {
	s.Spent = spent
	percent := new(big.Int).Mul(big.NewInt(int64(spent)), big.NewInt(100))
	if percent.Div(percent, big.NewInt(int64(s.Amount))); percent.IsInt64() {
		s.Percent = percent.Int64()
	} else {
		s.Percent = math.MaxInt64
	}
	s.Stopped = s.Stop && s.Spent >= s.Amount
	for _, percent := range thresholds(s.Budget) {
		_, told, err := tx.Get(Name, toldKey(month, percent, s.Function))
		if err != nil {
			return err
		}
		if told {
			s.Warned = append(s.Warned, percent)
		}
	}
	return nil
}

// thresholds are the percentages that a budget tells of.
func thresholds(b quipu.Budget) []int {
	if b.Warn == 100 {
		return []int{100}
	}
	return []int{b.Warn, 100}
}

// budgetsOf lists the budgets by function.
func budgetsOf(tx *view.Tx) ([]quipu.BudgetStatus, error) {
	var bad error
	list := []quipu.BudgetStatus{}
	err := tx.Peek(Name, budgetPrefix, budgetPrefix+"\xff", func(_ string, value []byte) bool {
		s := quipu.BudgetStatus{Warned: []int{}}
		bad = json.Unmarshal(value, &s.Budget)
		list = append(list, s)
		return bad == nil
	})
	return list, errors.Join(err, bad)
}

// judge looks how the budgets stand, and has calls stopped by that.
func (v *View) judge() error {
	v.judging.Lock()
	defer v.judging.Unlock()
	now := v.o.Clock.Now().UTC()
	var list []quipu.BudgetStatus
	err := v.look(func(tx *view.Tx) (err error) {
		list, err = standing(tx, now.Format(monthForm))
		return err
	})
	if err != nil {
		return fmt.Errorf("look at budgets: %w", err)
	}
	s := &stops{until: time.Date(now.Year(), now.Month()+1, 1, 0, 0, 0, 0, time.UTC), functions: map[string]bool{}}
	for _, b := range list {
		if b.Stopped {
			s.functions[b.Function] = true
		}
	}
	if len(s.functions) == 0 {
		s = nil
	}
	v.stopped.Store(s)
	v.standing.Store(&list)
	return nil
}

// Standing is how the budgets stood when they were last looked at, at most a second ago.
func (v *View) Standing() []quipu.BudgetStatus {
	if list := v.standing.Load(); list != nil {
		return *list
	}
	return nil
}

// notice is the data of the event that a budget tells.
type notice struct {
	Month   string `json:"month"`
	Percent int    `json:"percent"` // that is reached
	quipu.Budget
	Spent quipu.Money `json:"spent"`
}

// tellAll has budgets tell that they are used up so far. That they have is part of the record of the event, so each
// percentage is told once a month, whatever happens to the node.
func (v *View) tellAll(ctx context.Context) error {
	month := v.o.Clock.Now().UTC().Format(monthForm)
	for _, s := range v.Standing() {
		for _, percent := range thresholds(s.Budget) {
			if s.Percent < int64(percent) || slices.Contains(s.Warned, percent) {
				continue
			}
			if _, err := v.book.Change(ctx, func(tx *view.Tx) error { return v.tell(tx, month, percent, s) }); err != nil {
				return fmt.Errorf("tell of the budget of %q: %w", s.Function, err)
			}
		}
	}
	return nil
}

func (v *View) tell(tx *view.Tx, month string, percent int, s quipu.BudgetStatus) error {
	key := toldKey(month, percent, s.Function)
	if _, told, err := tx.Get(Name, key); err != nil || told {
		return err
	}
	data, err := json.Marshal(notice{Month: month, Percent: percent, Budget: s.Budget, Spent: s.Spent})
	if err != nil {
		return err
	}
	id, event, err := cloudevent.Wrap(cloudevent.Attributes{Source: "/budgets/" + s.Function, Type: cloudevent.TypeBudget, Subject: s.Function,
		Time: v.o.Clock.Now(), DataContentType: "application/json", Topic: quipu.TopicBudgets}, data)
	if err != nil {
		return err
	}
	tx.Put(Name, key, []byte{})
	if err := v.o.Publish(tx, quipu.Message{Topic: quipu.TopicBudgets, ID: id, ContentType: quipu.MediaCloudEvent, Data: event}); err != nil {
		return err
	}
	return do(tx, encodeTold(month, percent, s.Function))
}

// Budgets lists all, by function.
func (v *View) Budgets(context.Context) (list []quipu.BudgetStatus, err error) {
	err = v.look(func(tx *view.Tx) error {
		list, err = standing(tx, v.o.Clock.Now().UTC().Format(monthForm))
		return err
	})
	return list, err
}

// functionBytesMax bounds the name of a function that a budget is for. It need not be deployed yet.
const functionBytesMax = 63

// SetBudget makes a budget, or replaces the one of its function.
func (v *View) SetBudget(ctx context.Context, b quipu.Budget) error {
	switch {
	case b.Amount <= 0:
		return usage("the amount of a budget is %s, but must be more than nothing", b.Amount)
	case b.Warn < 1 || b.Warn > 100:
		return usage("a budget warns at 1 to 100 percent, not at %d", b.Warn)
	case len(b.Function) > functionBytesMax || strings.ContainsFunc(b.Function, func(r rune) bool { return r <= ' ' || r > '~' || r == '/' }):
		return usage("%.80q cannot be the name of a function", b.Function)
	}
	body, err := json.Marshal(b)
	if err != nil {
		return err
	}
	return v.change(ctx, func(tx *view.Tx) error {
		known, all := false, 0
		err := tx.Scan(Name, budgetPrefix, budgetPrefix+"\xff", func(key string, _ []byte) bool {
			all++
			known = known || key == budgetPrefix+b.Function
			return true
		})
		if err != nil {
			return err
		}
		if !known && all >= quipu.BudgetsMax {
			return &quipu.Error{Code: quipu.CodeTooMany, Op: "budget.set", Text: fmt.Sprintf("the namespace has %d budgets, which is the most", all),
				Hint: "quipu budget rm FUNCTION removes one"}
		}
		tx.Put(Name, budgetPrefix+b.Function, body)
		return do(tx, append([]byte{opBudget}, body...))
	})
}

// RemoveBudget removes the budget of a function.
func (v *View) RemoveBudget(ctx context.Context, function string) error {
	return v.change(ctx, func(tx *view.Tx) error {
		_, there, err := tx.Get(Name, budgetPrefix+function)
		if err != nil {
			return err
		}
		if !there {
			return &quipu.Error{Code: quipu.CodeNotFound, Op: "budget.remove", Text: fmt.Sprintf("there is no budget of %q", function),
				Hint: "quipu budget ls shows what there is"}
		}
		tx.Put(Name, budgetPrefix+function, nil)
		return do(tx, appendName([]byte{opDrop}, function))
	})
}
