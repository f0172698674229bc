package apphealth

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quipu-run/quipu/internal/clock"
)

var errSick = errors.New("sick")

func TestAnApplicationIsUnwellAfterAThresholdOfBadAnswersInARow(t *testing.T) {
	s := state{threshold: 3}
	var changes string
	for _, answer := range "bbgbbgbbbbbgg" {
		mark := "."
		if s.note(answer == 'g') {
			mark = map[bool]string{true: "W", false: "U"}[s.well]
		}
		changes += mark
	}
	if changes != "..W.....U..W." {
		t.Error(changes)
	}
}

func TestItIsAskedAtOnceAndInEachInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var asked, changed []time.Duration
		var last error
		answers := []error{errSick, nil, errSick, errSick, errSick, errSick, nil}
		ctx, cancel := context.WithCancel(t.Context())
		h, err := New(Options{Clock: &clock.Wall{},
			Probe: func(context.Context) error {
				answer := answers[len(asked)]
				if asked = append(asked, time.Since(start)); len(asked) == len(answers) {
					defer cancel() // this answer is none: the question was cut off
				}
				time.Sleep(100 * time.Millisecond)
				return answer
			},
			Changed: func(why error) { changed, last = append(changed, time.Since(start)), why }})
		if err != nil || h.Well() {
			t.Fatalf("it is well before it was asked; %v", err)
		}
		h.Run(ctx)
		const five, wait = 5 * time.Second, 100 * time.Millisecond
		if !slices.Equal(asked, []time.Duration{0, five, 2 * five, 3 * five, 4 * five, 5 * five, 6 * five}) {
			t.Errorf("it was asked at %v", asked)
		}
		if !slices.Equal(changed, []time.Duration{five + wait, 4*five + wait}) || last != errSick || h.Well() {
			t.Errorf("it changed at %v, and is so because of %v", changed, last)
		}
	})
}

func TestAnAnswerThatTakesTooLongIsABadOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		slow := false
		var why error
		h, err := New(Options{Clock: &clock.Wall{}, Threshold: 1,
			Probe: func(ctx context.Context) error {
				if !slow {
					slow = true
					return nil
				}
				<-ctx.Done()
				return ctx.Err()
			},
			Changed: func(w error) {
				if why = w; w != nil {
					cancel()
				}
			}})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		h.Run(ctx)
		if took := time.Since(start); !errors.Is(why, context.DeadlineExceeded) || took != 5500*time.Millisecond {
			t.Errorf("%v after %s", why, took)
		}
	})
}

func TestWhatCannotBeAskedIsRefused(t *testing.T) {
	for _, o := range []Options{{Timeout: 6 * time.Second}, {Interval: -1}, {Timeout: -1}, {Threshold: -1}} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v", o)
		}
	}
	if !(*Health)(nil).Well() {
		t.Error("one that nobody asks is unwell")
	}
}
