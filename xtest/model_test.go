package xtest

import (
	"testing"
	"time"

	"github.com/quipu-run/quipu"
)

func TestModelKeepsThePromisesOfTheLog(t *testing.T) {
	crash := Restart{Name: "a crash", Do: func(_ *testing.T, l quipu.Log) quipu.Log {
		l.(*Model).Crash()
		return l
	}}
	Log(t, func(*testing.T) quipu.Log { return NewModel(NewClock(time.Unix(1e9, 0))) }, crash)
}
