package resiliency

import (
	"context"
	"fmt"
	"time"

	"github.com/quipu-run/quipu"
)

// Policy is what holds for one target. The nil Policy is none.
type Policy struct {
	*plan
	all      *Policies
	target   Target
	label    string        // of the target, for Event
	breakers []*breaker    // an attempt passes through all of them, the most telling first
	expired  *TimeoutError // the cause of contexts that end because of this policy, and of no other
}

// TimeoutError says that an attempt took longer than its policy allows.
type TimeoutError struct {
	After time.Duration
	Err   error // what the operation answered when its context ended
}

// Error tells the limit and what was answered.
func (e *TimeoutError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("no answer within %s", e.After)
	}
	return fmt.Sprintf("no answer within %s: %v", e.After, e.Err)
}

// Unwrap is what the operation answered.
func (e *TimeoutError) Unwrap() error { return e.Err }

// Is makes it a context.DeadlineExceeded, which others look for.
func (e *TimeoutError) Is(target error) bool { return target == context.DeadlineExceeded }

// Retries tells whether an operation may run more than once, so that its request must be kept.
func (p *Policy) Retries() bool { return p != nil && p.retry != nil && p.retry.max != 0 }

// Deliveries is the retry as that of deliveries, which go on across restarts: how often, and the first pause, which doubles from
// then on. false: the policy says nothing about retries.
func (p *Policy) Deliveries() (r quipu.RetrySpec, ok bool) {
	if p == nil || p.retry == nil {
		return r, false
	}
	pause := p.retry.pause
	if p.retry.exponential {
		pause = p.retry.first
	}
	r = quipu.RetrySpec{Max: p.retry.max, Backoff: quipu.Duration(max(pause, time.Millisecond))}
	if r.Max < 0 || r.Max > quipu.RetryMaxMax {
		r.Max = quipu.RetryMaxMax
	}
	return r, true
}

// Do runs an operation until it succeeds or the policy gives up: each attempt within the timeout, all attempts through
// the breaker, more of them as the retry says, until ctx ends. An operation must end when its context does: it is
// waited for. The error is that of the last attempt; with OpenError the operation was not run.
func (p *Policy) Do(ctx context.Context, op func(context.Context) error) error {
	if p == nil {
		return op(ctx)
	}
	return p.do(ctx, op)
}

func (p *Policy) do(ctx context.Context, op func(context.Context) error) error {
	p.executed()
	err := p.attempt(ctx, op)
	if err == nil || p.retry == nil {
		return unmark(err)
	}
	pauses := p.retry.pauses(p.all.o.Clock.Now())
	for {
		if ctx.Err() != nil || !p.retry.again(err) {
			return unmark(err)
		}
		wait, more := pauses.after(p.all.o.Clock.Now())
		if !more {
			return unmark(err)
		}
		if pauses.n == 1 {
			p.activated(KindRetry, "")
		}
		select {
		case <-p.all.o.Clock.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("%w while waiting to try again after: %w", context.Cause(ctx), err)
		}
		if err = p.attempt(ctx, op); err == nil {
			return nil
		}
	}
}

// attempt runs the operation through the breakers. A panic counts as a failure.
func (p *Policy) attempt(ctx context.Context, op func(context.Context) error) (err error) {
	if len(p.breakers) == 0 {
		return p.timed(ctx, op)
	}
	leave, err := p.enter()
	if err != nil {
		return err
	}
	o := failed
	defer func() { leave(o) }()
	switch err = p.timed(ctx, op); {
	case err == nil:
		o = succeeded
	case ctx.Err() != nil:
		o = forgotten
	}
	return err
}

// enter passes through all breakers, or none: one that let pass what another refused has learned nothing by it.
func (p *Policy) enter() (leave func(outcome), err error) {
	var passed []func(outcome)
	leave = func(o outcome) {
		for _, one := range passed {
			one(o)
		}
	}
	clock := p.all.o.Clock
	for _, b := range p.breakers {
		epoch, before, err := b.enter(p.target.name, clock.Now())
		if err != nil {
			leave(forgotten)
			return nil, err
		}
		passed = append(passed, func(o outcome) {
			if after := b.leave(epoch, o, clock.Now()); after != before {
				p.activated(KindCircuitBreaker, after)
			}
		})
	}
	return leave, nil
}

// timed runs the operation within the timeout, which is of the machine's clock: what is measured is real work, however
// the platform's time is moved.
func (p *Policy) timed(ctx context.Context, op func(context.Context) error) error {
	if p.timeout == 0 {
		return op(ctx)
	}
	limited, cancel := context.WithTimeoutCause(ctx, p.timeout, p.expired)
	defer cancel()
	err := op(limited)
	if err == nil || context.Cause(limited) != error(p.expired) {
		return err
	}
	p.activated(KindTimeout, "")
	if last, ok := err.(*final); ok {
		return Final(&TimeoutError{After: p.timeout, Err: last.error})
	}
	return &TimeoutError{After: p.timeout, Err: err}
}
