package meter

import (
	_ "embed"
	"fmt"
	"math"
	"math/big"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/quipu-run/quipu"
)

// placesMax is how many decimal places a price has at most: it is an integer of that part of a unit.
const placesMax = 18

// priceDigitsMax bounds the digits before the point.
const priceDigitsMax = 12

// item is one thing that has a price.
type item struct {
	name string
	unit string // in which it is counted
	base int64  // counted units that the price is for
	of   func(quipu.Usage) int64
	text func(*quipu.Prices) *string
}

const (
	gigabyte    = 1 << 30
	million     = 1_000_000
	hoursAMonth = 730
)

// items are the lines of a bill, in its order.
var items = []item{
	{"perMillionCalls", "calls", million, func(u quipu.Usage) int64 { return u.Calls }, func(p *quipu.Prices) *string { return &p.PerMillionCalls }},
	{"perGBSecond", "MB-ms", 1024 * 1000, func(u quipu.Usage) int64 { return u.MemoryMBMillis }, func(p *quipu.Prices) *string { return &p.PerGBSecond }},
	{"perCPUSecond", "µs", million, func(u quipu.Usage) int64 { return u.CPUMicros }, func(p *quipu.Prices) *string { return &p.PerCPUSecond }},
	{"perStartSecond", "ms", 1000, func(u quipu.Usage) int64 { return u.StartMillis + u.InitMillis }, func(p *quipu.Prices) *string { return &p.PerStartSecond }},
	{"perGBIn", "bytes", gigabyte, func(u quipu.Usage) int64 { return u.BytesIn }, func(p *quipu.Prices) *string { return &p.PerGBIn }},
	{"perGBOut", "bytes", gigabyte, func(u quipu.Usage) int64 { return u.BytesOut }, func(p *quipu.Prices) *string { return &p.PerGBOut }},
	{"perMillionAppends", "records", million, func(u quipu.Usage) int64 { return u.LogAppends }, func(p *quipu.Prices) *string { return &p.PerMillionAppends }},
	{"perGBMonthStored", "byte-hours", gigabyte * hoursAMonth, func(u quipu.Usage) int64 { return u.StoredByteHours }, func(p *quipu.Prices) *string { return &p.PerGBMonthStored }},
}

// tariff is prices as integers, by item: 10^-placesMax of a unit of money for each base.
type tariff struct {
	prices quipu.Prices
	price  []*big.Int
}

//go:embed prices.yaml
var defaultText []byte

// DefaultPrices are those of a namespace that has not set any.
func DefaultPrices() quipu.Prices {
	var p quipu.Prices
	if err := yaml.Unmarshal(defaultText, &p); err != nil {
		panic(fmt.Sprintf("meter: the default prices cannot be read: %v", err)) // a test reads them
	}
	return p
}

// newTariff reads prices. CodeUsage.
func newTariff(p quipu.Prices) (tariff, error) {
	if p.Currency == "" || len(p.Currency) > 16 || strings.ContainsFunc(p.Currency, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return tariff{}, usage("the currency is %.40q, but must be a short name, as EUR", p.Currency)
	}
	t := tariff{prices: p}
	for _, i := range items {
		price, err := parsePrice(*i.text(&p))
		if err != nil {
			return tariff{}, usage("%s: %v", i.name, err)
		}
		t.price = append(t.price, price)
	}
	return t, nil
}

func usage(format string, args ...any) error {
	return &quipu.Error{Code: quipu.CodeUsage, Op: "bill", Text: fmt.Sprintf(format, args...)}
}

// parsePrice reads a decimal number exactly.
func parsePrice(s string) (*big.Int, error) {
	if s == "" {
		return new(big.Int), nil
	}
	whole, places, _ := strings.Cut(s, ".")
	if whole == "" || len(whole) > priceDigitsMax || len(places) > placesMax || strings.Trim(whole+places, "0123456789") != "" {
		return nil, fmt.Errorf("%.40q is not a price; write a number such as 0.25, with at most %d digits before the point and %d after it",
			s, priceDigitsMax, placesMax)
	}
	n, _ := new(big.Int).SetString(whole+places+strings.Repeat("0", placesMax-len(places)), 10) // digits
	return n, nil
}

// perMicro is how many of a price's parts are a millionth of a unit of money.
var perMicro = new(big.Int).Exp(big.NewInt(10), big.NewInt(placesMax-6), nil)

// amount is what a quantity costs, rounded half up to a millionth; the most that Money can be if it would be more.
func amount(quantity int64, price *big.Int, base int64) quipu.Money {
	divisor := new(big.Int).Mul(big.NewInt(base), perMicro)
	n := new(big.Int).Mul(big.NewInt(quantity), price)
	n.Add(n.Lsh(n, 1), divisor) // (2n + d) / 2d is n/d, rounded half up
	n.Div(n, divisor.Lsh(divisor, 1))
	if !n.IsInt64() {
		return math.MaxInt64
	}
	return quipu.Money(n.Int64())
}

// row makes the lines of a row of a bill.
func (t tariff) row(key string, u quipu.Usage) quipu.BillRow {
	row := quipu.BillRow{Key: key, Usage: u, Lines: []quipu.BillLine{}}
	for n, i := range items {
		quantity := i.of(u)
		if quantity == 0 || t.price[n].Sign() == 0 {
			continue
		}
		line := quipu.BillLine{Item: i.name, Quantity: quantity, Unit: i.unit, Price: *i.text(&t.prices), Amount: amount(quantity, t.price[n], i.base)}
		row.Lines = append(row.Lines, line)
		row.Amount = plus(row.Amount, line.Amount)
	}
	return row
}

// plus adds amounts that are not negative; the most that Money can be if it would be more.
func plus(a, b quipu.Money) quipu.Money {
	if sum := a + b; sum >= a {
		return sum
	}
	return math.MaxInt64
}
