package locallog

import (
	"testing"
)

// mustClean returns when the cleaner has done all that there is to do by the last checkpoint.
func mustClean(t testing.TB, l *Log) {
	t.Helper()
	done := make(chan struct{})
	select {
	case l.cleaner.asked <- done:
		<-done
	case <-l.done:
		t.Fatal("the log has stopped")
	}
}
