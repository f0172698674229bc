package clock

import (
	"testing"
	"testing/synctest"
	"time"
)

var start = time.Date(2030, 1, 1, 0, 0, 1, 0, time.UTC)

func over(c <-chan time.Time) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestASkipEndsTheNextWaitAndNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSkip(start)
		hour, minute := s.After(time.Hour), s.After(time.Minute)
		if s.Skip(start.Add(time.Second)) || over(minute) {
			t.Fatal("it went beyond its limit")
		}
		if !s.Skip(start.Add(24*time.Hour)) || !over(minute) || over(hour) {
			t.Fatal("the minute is not over, or the hour is")
		}
		if now := s.Now(); !now.Equal(start.Add(time.Minute)) {
			t.Errorf("it is %s", now)
		}
		time.Sleep(59*time.Minute - time.Nanosecond)
		if over(hour) {
			t.Error("the hour was over early")
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if !over(hour) || !s.Now().Equal(start.Add(time.Hour)) {
			t.Errorf("time does not pass by itself: it is %s", s.Now())
		}
		if s.Skip(start.Add(24 * time.Hour)) {
			t.Error("nobody waits, and it went on")
		}
	})
}

func TestTimeNeverGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSkip(start)
		s.Until(start.Add(time.Hour))
		s.Until(start)
		if now := s.Now(); !now.Equal(start.Add(time.Hour)) {
			t.Errorf("it is %s", now)
		}
		s.After(time.Minute)
		s.Stop()
		if s.Skip(start.Add(24 * time.Hour)) {
			t.Error("it was stopped, and somebody waits")
		}
	})
}
