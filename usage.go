package quipu

import (
	"context"
	"fmt"
	"math"
	"math/big"
	"strings"
)

// Usage is what was taken: by a run of a call, a call, a function in a day, a namespace in a month. It has integers only, so
// that sums do not depend on their order.
type Usage struct {
	Calls  int64 `json:"calls"`  // that ran in an instance; each attempt of a call that nobody waits for, and of a delivery, is one
	Runs   int64 `json:"runs"`   // one for each call, and one more for each conflict that it lost
	Errors int64 `json:"errors"` // calls that ended with an error, or a status of 500 or above

	Starts      int64 `json:"starts"` // of instances, also those that failed
	StartMillis int64 `json:"startMillis"`
	InitMillis  int64 `json:"initMillis"`

	// BilledMillis is the time of runs, from the request to the end of the reply, each rounded up and at least 1.
	BilledMillis   int64 `json:"billedMillis"`
	MemoryMB       int64 `json:"memoryMB"` // MiB that an instance may take; of sums, the most
	MemoryMBMillis int64 `json:"memoryMBMillis"`
	CPUMicros      int64 `json:"cpuMicros"`
	BytesIn        int64 `json:"bytesIn"` // bodies of requests
	BytesOut       int64 `json:"bytesOut"`
	LogAppends     int64 `json:"logAppends"` // records of the namespace's book
	// StoredByteHours is what the namespace kept, asked each hour.
	StoredByteHours int64 `json:"storedByteHours"`
}

// MemoryMBDefault is what an instance is taken to have whose function does not say.
const MemoryMBDefault = 128

// UsageKept is how many days usage is kept, by day and by month.
const UsageKept = 400

// Add adds other to u. What would not fit stays at the largest value.
func (u *Usage) Add(other Usage) {
	u.Calls = plus(u.Calls, other.Calls)
	u.Runs = plus(u.Runs, other.Runs)
	u.Errors = plus(u.Errors, other.Errors)
	u.Starts = plus(u.Starts, other.Starts)
	u.StartMillis = plus(u.StartMillis, other.StartMillis)
	u.InitMillis = plus(u.InitMillis, other.InitMillis)
	u.BilledMillis = plus(u.BilledMillis, other.BilledMillis)
	u.MemoryMB = max(u.MemoryMB, other.MemoryMB)
	u.MemoryMBMillis = plus(u.MemoryMBMillis, other.MemoryMBMillis)
	u.CPUMicros = plus(u.CPUMicros, other.CPUMicros)
	u.BytesIn = plus(u.BytesIn, other.BytesIn)
	u.BytesOut = plus(u.BytesOut, other.BytesOut)
	u.LogAppends = plus(u.LogAppends, other.LogAppends)
	u.StoredByteHours = plus(u.StoredByteHours, other.StoredByteHours)
}

func plus(a, b int64) int64 {
	if sum := a + b; sum >= a {
		return sum
	}
	return math.MaxInt64
}

// Fields are all values, for who stores them: their order never changes, and new ones come last.
func (u *Usage) Fields() [14]*int64 {
	return [14]*int64{&u.Calls, &u.Runs, &u.Errors, &u.Starts, &u.StartMillis, &u.InitMillis, &u.BilledMillis,
		&u.MemoryMBMillis, &u.CPUMicros, &u.BytesIn, &u.BytesOut, &u.LogAppends, &u.StoredByteHours, &u.MemoryMB}
}

// IsZero tells whether nothing was taken.
func (u Usage) IsZero() bool { return u == Usage{} }

// FunctionUsage is the usage of a function; "" is the namespace itself.
type FunctionUsage struct {
	Function string `json:"function"`
	Usage
}

// DayUsage is the usage of a function in a day of UTC, as 2026-11-21.
type DayUsage struct {
	Day string `json:"day"`
	FunctionUsage
}

// Money is an amount in millionths of the unit of its currency. As text it is a decimal number.
type Money int64

// String has two decimal places at least.
func (m Money) String() string {
	n, sign := new(big.Int).SetInt64(int64(m)), "" // the smallest has no positive
	if n.Sign() < 0 {
		n, sign = n.Neg(n), "-"
	}
	whole, rest := new(big.Int).DivMod(n, big.NewInt(1_000_000), new(big.Int))
	digits := fmt.Sprintf("%06d", rest.Int64())
	return sign + whole.String() + "." + digits[:2] + strings.TrimRight(digits[2:], "0")
}

// MarshalText is String.
func (m Money) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads a decimal number of up to six places.
func (m *Money) UnmarshalText(text []byte) error {
	s := string(text)
	unsigned, negative := strings.CutPrefix(s, "-")
	whole, places, _ := strings.Cut(unsigned, ".")
	if whole == "" || len(places) > 6 || strings.Trim(whole+places, "0123456789") != "" {
		return fmt.Errorf("%.40q is not an amount; write 12 or 12.50, with up to six places", s)
	}
	n, _ := new(big.Int).SetString(whole+places+strings.Repeat("0", 6-len(places)), 10) // digits
	if negative {
		n.Neg(n)
	}
	if !n.IsInt64() {
		return fmt.Errorf("%.40q is too large an amount", s)
	}
	*m = Money(n.Int64())
	return nil
}

// Prices are what units cost, as decimal numbers of up to 18 places in the unit of Currency; "" is nothing. A GB has 2^30
// bytes, or 1024 MB of memory; a month that something is kept has 730 hours.
type Prices struct {
	Currency          string `json:"currency" yaml:"currency"`
	PerMillionCalls   string `json:"perMillionCalls,omitempty" yaml:"perMillionCalls,omitempty"`
	PerGBSecond       string `json:"perGBSecond,omitempty" yaml:"perGBSecond,omitempty"` // of memory, while calls run
	PerCPUSecond      string `json:"perCPUSecond,omitempty" yaml:"perCPUSecond,omitempty"`
	PerStartSecond    string `json:"perStartSecond,omitempty" yaml:"perStartSecond,omitempty"` // of start and init of instances
	PerGBIn           string `json:"perGBIn,omitempty" yaml:"perGBIn,omitempty"`
	PerGBOut          string `json:"perGBOut,omitempty" yaml:"perGBOut,omitempty"`
	PerMillionAppends string `json:"perMillionAppends,omitempty" yaml:"perMillionAppends,omitempty"`
	PerGBMonthStored  string `json:"perGBMonthStored,omitempty" yaml:"perGBMonthStored,omitempty"`
}

// Values of the query of a bill: what its rows are.
const (
	ByFunction = "function"
	ByDay      = "day"
)

// Bill is what a namespace is to pay for a month. Each line is rounded once, half up, to a millionth; all sums are of lines.
type Bill struct {
	Month    string         `json:"month"` // of UTC, as 2026-11
	By       string         `json:"by"`
	Currency string         `json:"currency"`
	Rows     []BillRow      `json:"rows"`
	Usage    Usage          `json:"usage"` // of all rows
	Total    Money          `json:"total"`
	Budgets  []BudgetStatus `json:"budgets"` // of the month that is now; none in the bill of another
}

// BillRow is the part of a function, or of a day.
type BillRow struct {
	Key    string     `json:"key"` // the function, "" for the namespace itself; or the day
	Usage  Usage      `json:"usage"`
	Lines  []BillLine `json:"lines"` // those that are not 0
	Amount Money      `json:"amount"`
}

// BillLine is one thing that has a price.
type BillLine struct {
	Item     string `json:"item"`     // the field of Prices
	Quantity int64  `json:"quantity"` // in the unit in which it is counted
	Unit     string `json:"unit"`
	Price    string `json:"price"`
	Amount   Money  `json:"amount"`
}

// BudgetWarnDefault is the percentage of a budget at which it warns, if nothing is said.
const BudgetWarnDefault = 80

// BudgetsMax is how many budgets a namespace can have.
const BudgetsMax = 1000

// Budget bounds what a function, or with "" all of the namespace, costs in each month of UTC. At Warn percent, and at 100, an
// event tells so. With Stop, calls from outside are then refused until the month is over, and those that nobody waits for,
// and deliveries, wait; what runs goes on.
type Budget struct {
	Function string `json:"function,omitempty"`
	Amount   Money  `json:"amount"`
	Warn     int    `json:"warn"` // 1 to 100
	Stop     bool   `json:"stop,omitempty"`
}

// BudgetStatus is how a budget stands in the month that is now.
type BudgetStatus struct {
	Budget
	Spent   Money `json:"spent"`
	Percent int64 `json:"percent"` // rounded down
	Warned  []int `json:"warned"`  // percentages that were told of
	Stopped bool  `json:"stopped"`
}

// TopicBudgets is where a budget tells that it is used up so far: once in a month for each percentage.
const TopicBudgets = "quipu-budgets"

// Billing is what a namespace has taken, and what that costs. The newest second may be missing from what it answers.
type Billing interface {
	// Usage lists what was taken from one day to another, both included, by day and function. CodeUsage.
	Usage(ctx context.Context, from, to string) ([]DayUsage, error)
	// Bill is of a month, "" for the one that is now. CodeUsage.
	Bill(ctx context.Context, month, by string) (Bill, error)
	// Prices are those of the namespace, or the default ones.
	Prices(ctx context.Context) (Prices, error)
	// SetPrices is durable on return, and counts for all bills, those of past months included. CodeUsage.
	SetPrices(ctx context.Context, p Prices) error
	// Budgets lists all, by function.
	Budgets(ctx context.Context) ([]BudgetStatus, error)
	// SetBudget makes a budget, or replaces the one of its function: durable on return. CodeUsage, CodeTooMany.
	SetBudget(ctx context.Context, b Budget) error
	// RemoveBudget removes that of a function, "" for the namespace's. CodeNotFound.
	RemoveBudget(ctx context.Context, function string) error
}
