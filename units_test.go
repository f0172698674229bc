package quipu

import (
	"math"
	"testing"
)

func TestASizeIsReadAsItIsWritten(t *testing.T) {
	for _, want := range []Size{0, 1, 1023, 1 << 10, 5_000_000_000, 3 << 30, 1 << 40, math.MaxInt64} {
		text, err := want.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var got Size
		if err := got.UnmarshalText(text); err != nil || got != want {
			t.Errorf("%d is written %s and read as %d, %v", want, text, got, err)
		}
	}
}

func TestASizeTakesUnitsAndRefusesWhatIsNone(t *testing.T) {
	var s Size
	for text, want := range map[string]Size{"64Ki": 64 << 10, "1GiB": 1 << 30, "7MiB": 7 << 20, "12": 12, "12B": 12, "500k": 500_000, "10M": 10_000_000, "10MB": 10_000_000, "2G": 2_000_000_000} {
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%s is %d, %v; want %d", text, s, err, want)
		}
	}
	for _, text := range []string{"", "Gi", "B", "GB", "1GBB", "-1", "1.5G", "1.5Gi", "9223372036854775808", "8589934592Gi", "9223372037G"} {
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was taken for %d", text, s)
		}
	}
}

func TestProcessorsAreReadAsTheyAreWritten(t *testing.T) {
	var c MilliCPU
	for text, want := range map[string]MilliCPU{"500m": 500, "2": 2000, "0.25": 250, "1.5": 1500, "0": 0, "1500m": 1500} {
		if err := c.UnmarshalText([]byte(text)); err != nil || c != want {
			t.Errorf("%s is %d, %v; want %d", text, c, err, want)
		}
		back, err := want.MarshalText()
		if err != nil || c.UnmarshalText(back) != nil || c != want {
			t.Errorf("%d is written %s and read as %d, %v", want, back, c, err)
		}
	}
	for _, text := range []string{"", "m", "-1", "-1m", ".5", "1.2345", "two", "1e3", "99999999999"} {
		if err := c.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was taken for %d", text, c)
		}
	}
}
