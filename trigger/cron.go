package trigger

import (
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // a node needs nothing installed, nor the names of time zones

	"github.com/quipu-run/quipu"
	"github.com/robfig/cron/v3"
)

// cronParser reads 5 fields, 6 with seconds first, and descriptors.
var cronParser = cron.NewParser(cron.SecondOptional | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)

// schedule is when a trigger ticks.
//
// Where the clocks of its time zone change it does what Vixie's cron does: an expression whose hour is * goes by elapsed
// time. One that names hours ticks once for each local time it names: at the end of the gap if that is skipped, and the
// first time if it comes twice.
type schedule struct {
	spec  *cron.SpecSchedule
	every time.Duration // instead of spec
	zone  *time.Location
}

// everyMin is the shortest @every.
const everyMin = time.Second

// ParseSchedule reads a cron expression with its time zone, "" for UTC, and checks that it ever ticks after now.
func ParseSchedule(expression, timezone string, now time.Time) error {
	s, err := parseSchedule(expression, timezone)
	if err == nil && s.next(now).IsZero() {
		err = fmt.Errorf("the cron expression %q names no day that ever comes", expression)
	}
	return err
}

func parseSchedule(expression, timezone string) (schedule, error) {
	if strings.Contains(expression, "TZ=") {
		return schedule{}, fmt.Errorf("the cron expression %q has a time zone; write it as timezone", expression)
	}
	zone, err := time.LoadLocation(timezone)
	if err != nil || timezone == "Local" {
		return schedule{}, fmt.Errorf("%q is no time zone; write a name such as Europe/Berlin", timezone)
	}
	parsed, err := cronParser.Parse(expression)
	if err != nil {
		return schedule{}, fmt.Errorf("the cron expression %q cannot be read: %w", expression, err)
	}
	if every, ok := strings.CutPrefix(expression, "@every "); ok { // which the library rounds up to a second
		if d, err := time.ParseDuration(every); err != nil || d < everyMin {
			return schedule{}, fmt.Errorf("%s is too often; the shortest is @every %s", expression, everyMin)
		}
	}
	switch p := parsed.(type) {
	case *cron.SpecSchedule:
		p.Location = time.UTC
		return schedule{spec: p, zone: zone}, nil
	case cron.ConstantDelaySchedule:
		return schedule{every: p.Delay, zone: zone}, nil
	}
	return schedule{}, fmt.Errorf("the cron expression %q is of an unknown kind", expression)
}

// next is the first tick after t; zero if there is none in the next years.
func (s schedule) next(t time.Time) time.Time {
	if s.every > 0 { // counted from the epoch, so that a restart does not shift it
		return t.Truncate(s.every).Add(s.every)
	}
	if s.spec.Hour&starBit != 0 {
		return s.nextElapsed(t)
	}
	local := wall(t.In(s.zone))
	for range nextTriesMax {
		local = s.spec.Next(local)
		if local.IsZero() {
			return local
		}
		if at := instant(local, s.zone); at.After(t) {
			return at
		}
	}
	return time.Time{}
}

// nextTriesMax bounds the local times that come before t although their clock shows more: those of an hour that
// comes twice.
const nextTriesMax = 7200

// starBit is set by the parser in a field that is *.
const starBit = 1 << 63

// nextElapsed goes by elapsed time: the library steps through hours as they pass.
func (s schedule) nextElapsed(t time.Time) time.Time {
	spec := *s.spec
	spec.Location = s.zone
	return spec.Next(t.In(s.zone)).UTC()
}

// wall is what the clock on the wall shows, as if it were UTC.
func wall(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), 0, time.UTC)
}

// instant is when the clocks of zone first show local, or when they skip it.
func instant(local time.Time, zone *time.Location) time.Time {
	// The zone's offset some time before and after is the one before and after a change, if there is one near.
	const far = 26 * time.Hour
	_, before := local.Add(-far).In(zone).Zone()
	_, after := local.Add(far).In(zone).Zone()
	early := local.Add(-time.Duration(max(before, after)) * time.Second)
	late := local.Add(-time.Duration(min(before, after)) * time.Second)
	switch {
	case wall(early.In(zone)).Equal(local):
		return early
	case wall(late.In(zone)).Equal(local):
		return late
	}
	for late.Sub(early) > time.Second { // the gap begins between the two: halve
		middle := early.Add(late.Sub(early) / 2).Truncate(time.Second)
		if wall(middle.In(zone)).Before(local) {
			early = middle
		} else {
			late = middle
		}
	}
	return late
}

// ScheduleTopic is the platform's topic for the ticks of a function's schedule.
func ScheduleTopic(function string, t quipu.ScheduleTrigger) string {
	return quipu.PlatformTopicStart + "tick/" + function + "/" + t.Cron + "/" + t.Timezone + t.Path
}

// scheduleTopics are the subscriptions that the schedules of a function stand for.
func scheduleTopics(f quipu.Function) (list []quipu.TopicTrigger) {
	for _, t := range f.Schedules() {
		list = append(list, quipu.TopicTrigger{Name: ScheduleTopic(f.Name, t), Path: t.Path, Batch: 1, Retry: t.Retry, Binding: t.Binding})
	}
	return list
}

// Topics are all that a function gets events by: its topics, and those of its schedules.
func Topics(f quipu.Function) []quipu.TopicTrigger { return append(f.Topics(), scheduleTopics(f)...) }

// Wanted are the durable subscriptions of functions: by function and topic, with where a new one starts.
func Wanted(functions []quipu.Function) map[string]map[string]quipu.Position {
	want := map[string]map[string]quipu.Position{}
	for _, f := range functions {
		for _, t := range Topics(f) {
			if want[f.Name] == nil {
				want[f.Name] = map[string]quipu.Position{}
			}
			want[f.Name][t.Name] = quipu.Position{Earliest: t.From == quipu.FromEarliest}
		}
	}
	return want
}
