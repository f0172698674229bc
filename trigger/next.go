package trigger

import "time"

// NextTick is the first tick of a cron expression after a time, zero if there is none.
func NextTick(expression, timezone string, after time.Time) (time.Time, error) {
	s, err := parseSchedule(expression, timezone)
	if err != nil {
		return time.Time{}, err
	}
	return s.next(after), nil
}
