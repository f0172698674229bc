package autoscale

import "time"

// Meter makes averages of seconds out of a level that changes at any time. A second is told when it is over, and the
// part of the first one before the first change counts as 0.
type Meter struct {
	To *Scaler

	// Nanoseconds of Unix time, since this is on the way of every call.
	level  int64
	since  int64 // of the level
	second int64 // that since lies in; 0 means that nothing was set yet
	area   int64 // levels times how long they lasted, in this second
}

// Set says that the level is so from now on. A clock that goes back stands still meanwhile.
func (m *Meter) Set(now time.Time, level int) {
	at := now.UnixNano()
	if at-m.second >= int64(bucket) {
		m.turn(at)
	}
	if at > m.since {
		m.area += m.level * (at - m.since)
		m.since = at
	}
	m.level = int64(level)
}

// turn ends the second, and all that went by since; of those, one window says it all.
func (m *Meter) turn(at int64) {
	next := at - at%int64(bucket)
	if m.second != 0 {
		end := m.second + int64(bucket)
		m.area += m.level * (end - m.since)
		m.To.Record(time.Unix(0, m.second), float64(m.area)/float64(bucket))
		for end = max(end, next-int64(m.To.length)); end < next; end += int64(bucket) {
			m.To.Record(time.Unix(0, end), float64(m.level))
		}
	}
	m.area, m.since, m.second = 0, next, next
}
