package bindings

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/component"
	"github.com/robfig/cron/v3"
)

// cronParser reads what Dapr's does: 5 fields, 6 with seconds first, and descriptors.
var cronParser = cron.NewParser(cron.SecondOptional | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)

// schedule is a bindings.cron: a schedule of the platform, which unlike Dapr's ticks once for all instances.
type schedule struct{ trigger quipu.ScheduleTrigger }

// NewCron makes a bindings.cron. Metadata: schedule, which may start with TZ=zone; timezone, UTC if nothing is said;
// route; direction.
func NewCron(_ context.Context, h component.Host, s component.Spec) (any, error) {
	expression, err := s.Metadata.Need("schedule")
	if err != nil {
		return nil, err
	}
	if in, _ := directions(s.Metadata); !in {
		return nil, fmt.Errorf("metadata direction is %.40q, but bindings.cron is an input binding", s.Metadata.Get("direction"))
	}
	zone, expression := splitZone(strings.TrimSpace(expression))
	if said := s.Metadata.Get("timezone"); said != "" {
		zone = said
	}
	location, err := time.LoadLocation(zone)
	if err != nil || zone == "Local" {
		return nil, fmt.Errorf("%.60q is no time zone; write a name such as Europe/Berlin", zone)
	}
	parsed, err := cronParser.Parse(expression)
	if err != nil {
		return nil, fmt.Errorf("metadata schedule is %.60q: %w", expression, err)
	}
	if parsed.Next(h.Clock.Now().In(location)).IsZero() {
		return nil, fmt.Errorf("metadata schedule is %.60q, which names no day that ever comes", expression)
	}
	if constant, ok := parsed.(cron.ConstantDelaySchedule); ok {
		expression = "@every " + constant.Delay.String() // whole seconds, at least one, as in Dapr
	}
	return schedule{quipu.ScheduleTrigger{Cron: expression, Path: route(s), Timezone: zone, Missed: quipu.MissedLast, Retry: retryDefault()}}, nil
}

// InputSchedule is component.InputSchedule.
func (c schedule) InputSchedule() quipu.ScheduleTrigger { return c.trigger }

// splitZone takes the time zone off an expression that starts with one.
func splitZone(expression string) (zone, rest string) {
	for _, start := range []string{"CRON_TZ=", "TZ="} {
		if said, ok := strings.CutPrefix(expression, start); ok {
			zone, rest, _ := strings.Cut(said, " ")
			return zone, strings.TrimSpace(rest)
		}
	}
	return "UTC", expression
}
