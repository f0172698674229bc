package trigger

import (
	"testing"
	"time"
)

// Clocks of Berlin skip from 2 to 3 on 29 March 2026, and go back from 3 to 2 on 25 October; those of Lord Howe by half
// an hour only.
func TestChangesOfTheClocks(t *testing.T) {
	for _, c := range []struct {
		why, cron, zone, from string
		want                  []string
	}{
		{"a skipped time ticks when the gap ends", "30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z",
			[]string{"2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"}},
		{"a time that comes twice ticks the first time", "30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z",
			[]string{"2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"}},
		{"every hour is every hour that passes", "0 * * * *", "Europe/Berlin", "2026-10-24T23:30:00Z",
			[]string{"2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"}},
		{"every hour has no gap", "0 * * * *", "Europe/Berlin", "2026-03-28T23:30:00Z",
			[]string{"2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z"}},
		{"hours named, one of them skipped", "15 1,2,3 * * *", "Europe/Berlin", "2026-03-28T23:00:00Z",
			[]string{"2026-03-29T00:15:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:15:00Z", "2026-03-29T23:15:00Z"}},
		{"an ordinary day", "0 9 * * MON", "America/New_York", "2026-03-07T00:00:00Z",
			[]string{"2026-03-09T13:00:00Z", "2026-03-16T13:00:00Z"}},
		{"half an hour", "15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z",
			[]string{"2026-10-03T15:30:00Z", "2026-10-04T15:15:00Z"}},
		{"every 90 minutes, whatever the clocks do", "@every 90m", "Europe/Berlin", "2026-03-29T00:10:00Z",
			[]string{"2026-03-29T01:30:00Z", "2026-03-29T03:00:00Z"}},
	} {
		s, err := parseSchedule(c.cron, c.zone)
		if err != nil {
			t.Fatal(err)
		}
		at, err := time.Parse(time.RFC3339, c.from)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range c.want {
			if at = s.next(at); at.UTC().Format(time.RFC3339) != want {
				t.Errorf("%s (%s in %s): a tick at %s, want %s", c.why, c.cron, c.zone, at.UTC().Format(time.RFC3339), want)
				break
			}
		}
	}
}
