package meter

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/view"
)

// Keys of the view. Days and months are written as 2026-11-21 and 2026-11, so that their order is that of time.
const (
	dayPrefix    = "d/" // day, /, function: the usage of the day
	monthPrefix  = "m/" // month, /, function: the usage of the month
	toldPrefix   = "w/" // month, /, percentage, /, function: a budget has told so
	budgetPrefix = "b/" // function: JSON of the budget
	nowKey       = "now"
	hourKey      = "hour" // the last for which what is kept was sampled, decimal
	pricesKey    = "prices"
)

const (
	dayForm   = "2006-01-02"
	monthForm = "2006-01"
)

// functionsMax bounds the rows of a day, and of a month. What further functions take is the namespace's own.
const functionsMax = 10_000

// totals are the rows that still change: those of the newest day and month. They are the applier's own.
type totals struct {
	now   string // the day
	day   map[string]quipu.Usage
	month map[string]quipu.Usage
}

// Load takes the rows that still change from the store.
func (v *View) Load(r view.Reader) error {
	v.totals = totals{day: map[string]quipu.Usage{}, month: map[string]quipu.Usage{}}
	err := r.Scan(Name, nowKey, func(_ string, value []byte) error {
		v.totals.now = string(value)
		return nil
	})
	if err != nil || v.totals.now == "" {
		return err
	}
	rows := func(prefix string, to map[string]quipu.Usage) error {
		return r.Scan(Name, prefix, func(key string, value []byte) error {
			u, err := decodeUsage(value)
			to[key[len(prefix):]] = u
			return err
		})
	}
	return errors.Join(rows(dayPrefix+v.totals.now+"/", v.totals.day), rows(monthPrefix+monthOf(v.totals.now)+"/", v.totals.month))
}

func monthOf(day string) string { return day[:len(monthForm)] }

// Apply writes what one operation does.
func (v *View) Apply(b *view.Batch, op []byte, at view.At) error {
	if len(op) == 0 {
		return errOp
	}
	r := &reader{rest: op[1:]}
	switch op[0] {
	case opTook:
		return v.applyTook(b, r, at)
	case opSample:
		return v.applySample(b, r, at)
	case opPrices:
		return b.Set(Name, pricesKey, op[1:])
	case opBudget:
		var budget quipu.Budget
		if err := json.Unmarshal(op[1:], &budget); err != nil {
			return errors.Join(errOp, err)
		}
		return b.Set(Name, budgetPrefix+budget.Function, op[1:])
	case opDrop:
		function := r.name()
		return errors.Join(r.end(), b.Delete(Name, budgetPrefix+function))
	case opTold:
		key := toldKey(r.name(), int(r.uint()), r.name())
		return errors.Join(r.end(), b.Set(Name, key, nil))
	}
	return errOp
}

func (v *View) applyTook(b *view.Batch, r *reader, at view.At) error {
	if err := v.turn(b, at); err != nil {
		return err
	}
	for n := r.uint(); n > 0 && !r.bad; n-- {
		function := r.name()
		if err := v.add(b, function, r.usage()); err != nil {
			return err
		}
	}
	return r.end()
}

func (v *View) applySample(b *view.Batch, r *reader, at view.At) error {
	hour, bytes := r.uint(), r.uint()
	if err := r.end(); err != nil || bytes > 1<<63-1 {
		return errOp
	}
	if err := v.turn(b, at); err != nil {
		return err
	}
	return errors.Join(v.add(b, "", quipu.Usage{StoredByteHours: int64(bytes)}), b.Set(Name, hourKey, strconv.AppendUint(nil, hour, 10)))
}

// add adds to the rows of a function.
func (v *View) add(b *view.Batch, function string, u quipu.Usage) error {
	rows := func(of map[string]quipu.Usage, prefix string) error {
		name := function
		if _, known := of[name]; !known && len(of) >= functionsMax {
			name = ""
		}
		sum := of[name]
		sum.Add(u)
		of[name] = sum
		v.buf = appendUsage(v.buf[:0], sum)
		return b.Set(Name, prefix+name, v.buf)
	}
	return errors.Join(rows(v.totals.day, dayPrefix+v.totals.now+"/"), rows(v.totals.month, monthPrefix+monthOf(v.totals.now)+"/"))
}

// turn begins a day with the first record of it, and forgets those that are too old. A record that the clock of another node
// put before the newest day counts for that.
func (v *View) turn(b *view.Batch, at view.At) error {
	when := time.Unix(0, at.Stamp).UTC()
	day := when.Format(dayForm)
	if day <= v.totals.now {
		return nil
	}
	if v.totals.now == "" || monthOf(day) != monthOf(v.totals.now) {
		v.totals.month = map[string]quipu.Usage{}
	}
	v.totals.now, v.totals.day = day, map[string]quipu.Usage{}
	oldest := when.AddDate(0, 0, -quipu.UsageKept).Format(dayForm)
	return errors.Join(b.Set(Name, nowKey, []byte(day)),
		b.DeleteRange(Name, dayPrefix, dayPrefix+oldest),
		b.DeleteRange(Name, monthPrefix, monthPrefix+monthOf(oldest)),
		b.DeleteRange(Name, toldPrefix, toldPrefix+monthOf(day)))
}

// Forget implements view.Forgetter: what a namespace has used is on its bill, not on that of a fork. Prices and budgets stay.
func (v *View) Forget(b *view.Batch) error {
	return errors.Join(b.Delete(Name, nowKey), b.Delete(Name, hourKey),
		b.DeleteRange(Name, dayPrefix, dayPrefix+"\xff"),
		b.DeleteRange(Name, monthPrefix, monthPrefix+"\xff"),
		b.DeleteRange(Name, toldPrefix, toldPrefix+"\xff"))
}

func toldKey(month string, percent int, function string) string {
	return fmt.Sprintf("%s%s/%d/%s", toldPrefix, month, percent, function)
}

func encodeTold(month string, percent int, function string) []byte {
	return appendName(binary.AppendUvarint(appendName([]byte{opTold}, month), uint64(percent)), function)
}

// DescribeOp is what an operation does, in words.
func DescribeOp(op []byte) string {
	if len(op) == 0 {
		return errOp.Error()
	}
	switch op[0] {
	case opTook:
		return describeTook(&reader{rest: op[1:]})
	case opSample:
		return "count what is kept"
	case opPrices:
		return "set prices"
	case opBudget, opDrop:
		return "change a budget"
	case opTold:
		return "note that a budget has told"
	}
	return errOp.Error()
}

func describeTook(r *reader) string {
	var sum quipu.Usage
	for n := r.uint(); n > 0 && !r.bad; n-- {
		r.name()
		sum.Add(r.usage())
	}
	if r.end() != nil {
		return errOp.Error()
	}
	return fmt.Sprintf("count %d ms, %d MB-ms and %d µs of processor", sum.BilledMillis, sum.MemoryMBMillis, sum.CPUMicros)
}
