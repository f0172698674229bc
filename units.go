package quipu

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration written as text: 200ms, 30s, 5m, 24h, 7d.
type Duration time.Duration

// Std is the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// MarshalText is the form of time.Duration.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads what time.ParseDuration does, and whole days as 7d.
func (d *Duration) UnmarshalText(text []byte) error {
	s := string(text)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return fmt.Errorf("%q is not a duration; write 200ms, 30s, 5m, 24h or 7d", s)
		}
		*d = Duration(time.Duration(n) * 24 * time.Hour)
		return nil
	}
	v, err := time.ParseDuration(s)
	if err != nil || v < 0 {
		return fmt.Errorf("%q is not a duration; write 200ms, 30s, 5m, 24h or 7d", s)
	}
	*d = Duration(v)
	return nil
}

// Size is a number of bytes written as text: 64Ki, 256Mi, 2Gi, or a plain number. It is also read from powers of ten: 500k, 10M, 2G.
type Size int64

type sizeUnit struct {
	suffix string
	factor Size
}

var (
	sizeUnits    = []sizeUnit{{"Gi", 1 << 30}, {"Mi", 1 << 20}, {"Ki", 1 << 10}, {"", 1}}
	decimalUnits = []sizeUnit{{"G", 1e9}, {"M", 1e6}, {"k", 1e3}, {"K", 1e3}}
)

// MarshalText uses the largest unit that divides the size.
func (s Size) MarshalText() ([]byte, error) {
	for _, u := range sizeUnits {
		if s%u.factor == 0 && s >= u.factor {
			return []byte(strconv.FormatInt(int64(s/u.factor), 10) + u.suffix), nil
		}
	}
	return []byte("0"), nil
}

// UnmarshalText reads a number with an optional unit, which may end with B.
func (s *Size) UnmarshalText(text []byte) error {
	plain := strings.TrimSuffix(string(text), "B")
	for _, u := range slices.Concat(decimalUnits, sizeUnits) {
		digits, ok := strings.CutSuffix(plain, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 63)
		if err != nil || n > math.MaxInt64/uint64(u.factor) {
			break
		}
		*s = Size(n) * u.factor
		return nil
	}
	return fmt.Errorf("%q is not a size; write 64Ki, 256Mi or 2Gi", text)
}

// MilliCPU is a share of processors in thousandths, written as 500m, 2 or 0.25.
type MilliCPU int64

// MarshalText writes whole processors without a unit.
func (c MilliCPU) MarshalText() ([]byte, error) {
	if c%1000 == 0 {
		return strconv.AppendInt(nil, int64(c/1000), 10), nil
	}
	return append(strconv.AppendInt(nil, int64(c), 10), 'm'), nil
}

// UnmarshalText reads thousandths with an m, or processors with up to three decimals.
func (c *MilliCPU) UnmarshalText(text []byte) error {
	bad := fmt.Errorf("%q is not an amount of processors; write 500m, 2 or 0.25", text)
	if milli, ok := strings.CutSuffix(string(text), "m"); ok {
		n, err := strconv.ParseUint(milli, 10, 31)
		if err != nil {
			return bad
		}
		*c = MilliCPU(n)
		return nil
	}
	whole, part, _ := strings.Cut(string(text), ".")
	if len(part) > 3 || whole == "" {
		return bad
	}
	n, err := strconv.ParseUint(whole+part+"000"[len(part):], 10, 31)
	if err != nil {
		return bad
	}
	*c = MilliCPU(n)
	return nil
}
