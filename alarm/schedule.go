package alarm

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"

	kittime "github.com/dapr/kit/time"
	"github.com/quipu-run/quipu"
	"github.com/robfig/cron/v3"
)

// cronParser reads 6 fields, seconds first, 5 without them, and descriptors.
var cronParser = cron.NewParser(cron.SecondOptional | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)

// everyMin is the shortest time between two times of a schedule.
const everyMin = time.Millisecond

// yearsMax and latest keep times where they can be counted in nanoseconds.
const yearsMax = 200

var latest = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)

// rhythm is when an alarm comes again: by a cron expression, or after a period.
type rhythm struct {
	cron                cron.Schedule
	years, months, days int
	every               time.Duration
	repeats             int // that the schedule itself names; 0 none
}

// parseRhythm reads a schedule, which is not "".
func parseRhythm(s string) (r rhythm, err error) {
	every, isEvery := strings.CutPrefix(s, "@every ")
	switch {
	case isEvery:
		r.every, err = time.ParseDuration(every)
	case strings.HasPrefix(s, "P") || strings.HasPrefix(s, "R"):
		return parsePeriod(s)
	default:
		if r.every, err = time.ParseDuration(s); err == nil {
			break
		}
		r.every = 0
		if r.cron, err = cronParser.Parse(s); err != nil {
			return r, fmt.Errorf("the schedule %q cannot be read: %w", s, err)
		}
		return r, nil
	}
	if err == nil && r.every < everyMin {
		err = fmt.Errorf("%s is too often", r.every)
	}
	if err != nil {
		return r, fmt.Errorf("the schedule %q cannot be read: %w", s, err)
	}
	return r, nil
}

// parsePeriod reads an ISO 8601 duration, which may say how often it comes.
func parsePeriod(s string) (r rhythm, err error) {
	r.years, r.months, r.days, r.every, r.repeats, err = kittime.ParseISO8601Duration(s)
	switch {
	case err != nil:
		return r, err
	case r.repeats == 0:
		return r, fmt.Errorf("the schedule %q has no repetitions", s)
	case r.years > yearsMax || r.months > 12*yearsMax || r.days > 366*yearsMax:
		return r, fmt.Errorf("the schedule %q is beyond all times", s)
	case r.years < 0 || r.months < 0 || r.days < 0 || r.every < 0 || r.years|r.months|r.days == 0 && r.every < everyMin:
		return r, fmt.Errorf("the schedule %q has no time between repetitions", s)
	}
	r.repeats = max(0, r.repeats)
	return r, nil
}

// after is the first time after the one at last; zero if there is none.
func (r rhythm) after(last time.Time) time.Time {
	if r.cron != nil {
		return r.cron.Next(last.UTC())
	}
	return last.AddDate(r.years, r.months, r.days).Add(r.every)
}

// next is the time that follows last. Times that have passed by now are made up for by one: the latest of them, or now.
func (r rhythm) next(last, now time.Time) time.Time {
	at := r.after(last)
	if at.IsZero() || at.After(now) {
		return at
	}
	if r.cron != nil {
		return now
	}
	if r.years|r.months|r.days == 0 {
		return at.Add(now.Sub(at) / r.every * r.every)
	}
	for later := r.after(at); !later.After(now); later = r.after(at) { // at least a day each
		at = later
	}
	return at
}

// timing is when an alarm happens.
type timing struct {
	rhythm       // if it has a schedule
	again   bool // it has
	total   int  // times at most; 0 without end
	first   time.Time
	expires time.Time // zero never
}

// parseTiming reads when an alarm that is set now happens. The rules, and what cannot be, are those of Dapr 1.18's scheduler.
func parseTiming(a quipu.Alarm, now time.Time) (t timing, err error) {
	switch {
	case a.Schedule == "" && a.DueTime == "":
		return t, errors.New("it has neither a due time nor a schedule")
	case a.Repeats < 0 || a.Repeats > math.MaxInt32:
		return t, fmt.Errorf("it cannot be repeated %d times", a.Repeats)
	case a.Schedule == "" && a.Repeats > 1:
		return t, errors.New("it needs a schedule to be repeated")
	case a.Schedule == "" && a.TTL != "":
		return t, errors.New("it needs a schedule to have a time to live")
	}
	if t.again = a.Schedule != ""; t.again {
		if t.rhythm, err = parseRhythm(a.Schedule); err != nil {
			return t, err
		}
	}
	t.total = a.Repeats
	if t.total == 0 {
		t.total = t.repeats
	}
	begin := now
	if a.DueTime != "" {
		if begin, err = parsePoint(a.DueTime, now); err != nil {
			return t, fmt.Errorf("due time: %w", err)
		}
		t.first = begin
	} else if t.first = t.after(now); t.first.IsZero() {
		return t, fmt.Errorf("the schedule %q names no time that ever comes", a.Schedule)
	}
	if t.first.After(latest) {
		return t, fmt.Errorf("its first time, %s, is too far away", t.first.Format(time.RFC3339))
	}
	if a.TTL == "" {
		return t, nil
	}
	if t.expires, err = parsePoint(a.TTL, begin); err != nil {
		return t, fmt.Errorf("time to live: %w", err)
	}
	if t.expires.After(latest) {
		return t, fmt.Errorf("its time to live ends at %s, which is too far away", t.expires.Format(time.RFC3339))
	}
	if a.DueTime != "" && begin.After(t.expires) {
		return t, errors.New("its time to live ends before its due time")
	}
	return t, nil
}

// parsePoint reads a time: RFC 3339, or a duration from another on, as of Go or ISO 8601.
func parsePoint(s string, from time.Time) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339, s); err == nil {
		return at, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return from.Add(d), nil
	}
	years, months, days, d, repeats, err := kittime.ParseISO8601Duration(s)
	if err != nil {
		return time.Time{}, fmt.Errorf("%.80q is neither a time nor a duration", s)
	}
	if repeats >= 0 {
		return time.Time{}, fmt.Errorf("%.80q is repeated, which only a schedule can be", s)
	}
	return from.AddDate(years, months, days).Add(d), nil
}

// checkName refuses what Dapr's scheduler refuses as the name of a job: what could be taken for something else in a path.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("it has no name")
	case len(name) > quipu.AlarmNameMax:
		return fmt.Errorf("its name has %d bytes, the most is %d", len(name), quipu.AlarmNameMax)
	case strings.ContainsAny(name, `#?/\`) || name == "." || name == "..":
		return fmt.Errorf("its name %q has one of # ? / \\, or is a step in a path", name)
	case strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Errorf("its name %q has a control character", name)
	}
	return nil
}
