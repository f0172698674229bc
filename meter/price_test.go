package meter

import (
	"math/big"
	"testing"

	"pgregory.net/rapid"

	"github.com/quipu-run/quipu"
)

// digits draws a decimal number as people write it.
func digits(t *rapid.T) string {
	s := rapid.StringMatching(`[0-9]{1,12}`).Draw(t, "whole")
	if rapid.Bool().Draw(t, "point") {
		s += "." + rapid.StringMatching(`[0-9]{0,18}`).Draw(t, "places")
	}
	return s
}

// halfUp rounds to an integer by the definition: the largest that is not more than r + 1/2.
func halfUp(r *big.Rat) *big.Int {
	r = new(big.Rat).Add(r, big.NewRat(1, 2))
	return new(big.Int).Div(r.Num(), r.Denom())
}

func TestALineIsTheExactProductRoundedOnceHalfUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.Custom(digits).Draw(t, "price")
		price, err := parsePrice(text)
		if err != nil {
			t.Fatal(err)
		}
		quantity := rapid.Int64Min(0).Draw(t, "quantity")
		i := rapid.SampledFrom(items).Draw(t, "item")
		exact, ok := new(big.Rat).SetString(text)
		if !ok {
			exact, ok = new(big.Rat).SetString(text + "0") // "1." is 1
		}
		if !ok {
			t.Fatalf("%q is no number", text)
		}
		exact.Mul(exact, new(big.Rat).SetInt64(quantity)).Mul(exact, big.NewRat(1_000_000, i.base))
		want := halfUp(exact)
		if got := amount(quantity, price, i.base); want.IsInt64() && int64(got) != want.Int64() || !want.IsInt64() && got != 1<<63-1 {
			t.Fatalf("%d of %s at %s cost %d millionths, want %s", quantity, i.name, text, int64(got), want)
		}
	})
}

func TestARowIsTheSumOfItsLines(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := quipu.Prices{Currency: "EUR"}
		for _, i := range items {
			*i.text(&p) = rapid.StringMatching(`[0-9]{1,3}\.[0-9]{0,18}`).Draw(t, i.name)
		}
		tariff, err := newTariff(p)
		if err != nil {
			t.Fatal(err)
		}
		var u quipu.Usage
		for _, n := range u.Fields() {
			*n = rapid.Int64Range(0, 1<<40).Draw(t, "n")
		}
		row, sum := tariff.row("f", u), quipu.Money(0)
		for _, line := range row.Lines {
			sum += line.Amount
		}
		if sum != row.Amount || len(row.Lines) > len(items) {
			t.Fatalf("%d lines have %s, the row %s", len(row.Lines), sum, row.Amount)
		}
	})
}

func TestAmountsAreWrittenAndReadExactly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := quipu.Money(rapid.Int64().Draw(t, "money"))
		var got quipu.Money
		if err := got.UnmarshalText([]byte(want.String())); err != nil || got != want {
			t.Fatalf("%d is written %s and read %d, %v", int64(want), want, int64(got), err)
		}
	})
	for text, want := range map[string]quipu.Money{"0.00": 0, "12.50": 12_500_000, "0.000001": 1, "-3.10": -3_100_000} {
		if got := want.String(); got != text {
			t.Errorf("%d is written %s, want %s", int64(want), got, text)
		}
	}
}

func TestWhatIsNoNumberIsNoPriceAndNoAmount(t *testing.T) {
	for _, text := range []string{"-1", "1e3", "1,5", " 1", ".5", "1.0000000000000000001", "1234567890123", "0x1", "1.2.3", "∞"} {
		if p, err := parsePrice(text); err == nil {
			t.Errorf("%q is the price %s", text, p)
		}
	}
	for _, text := range []string{"", "1e3", "1.0000001", "9223372036854.775808", "+1", "1,5", "."} {
		var m quipu.Money
		if err := m.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is the amount %s", text, m)
		}
	}
}

func TestTheDefaultPricesCanBeReckonedWith(t *testing.T) {
	tariff, err := newTariff(DefaultPrices())
	if err != nil {
		t.Fatal(err)
	}
	// A million calls of 100 ms with 512 MB: 0.20 and 50,000 GB-seconds at 0.0000166667.
	row := tariff.row("f", quipu.Usage{Calls: 1_000_000, MemoryMBMillis: 1_000_000 * 100 * 512})
	if row.Amount.String() != "1.033335" {
		t.Errorf("it costs %s, want 0.20 + 0.833335", row.Amount)
	}
}
