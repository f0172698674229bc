package resiliency

import (
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/quipu-run/quipu/internal/resource"
)

// Defaults of Dapr's.
const (
	pauseDefault       = 5 * time.Second
	maxIntervalDefault = backoff.DefaultMaxInterval
	exponentialMax     = 15 * time.Minute // that an exponential retry goes on, if its number does not end it before
	builtInRetriesMin  = 3
)

// retry is a policy to try again.
type retry struct {
	exponential bool
	pause       time.Duration // constant
	first       time.Duration // exponential
	interval    time.Duration // the longest
	elapsed     time.Duration // that it may go on
	max         int           // -1 is for ever
	http, grpc  []resource.CodeRange
}

// parseRetry reads what Validate has found to be good.
func parseRetry(r resource.Retry) (*retry, error) {
	p := &retry{exponential: !r.Constant(), first: backoff.DefaultInitialInterval, elapsed: exponentialMax, max: -1}
	var err [4]error
	p.pause, err[0] = resource.OptionalDuration(r.Duration, pauseDefault)
	p.interval, err[1] = resource.OptionalDuration(r.MaxInterval, maxIntervalDefault)
	p.http, err[2] = resource.Codes(r.Matching.HTTPStatusCodes, resource.HTTPCodes)
	p.grpc, err[3] = resource.Codes(r.Matching.GRPCStatusCodes, resource.GRPCCodes)
	if r.MaxRetries != nil {
		p.max = *r.MaxRetries
	}
	return p, errors.Join(err[:]...)
}

// pauses are those of one operation.
type pauses struct {
	r       *retry
	n       int
	started time.Time
	next    *backoff.ExponentialBackOff
}

func (r *retry) pauses(now time.Time) pauses {
	p := pauses{r: r, started: now}
	if r.exponential {
		p.next = backoff.NewExponentialBackOff()
		p.next.InitialInterval, p.next.MaxInterval = min(r.first, r.interval), r.interval
		p.next.Reset()
	}
	return p
}

// after answers how long to wait after a failure, or that it was the last one.
func (p *pauses) after(now time.Time) (time.Duration, bool) {
	if p.r.max >= 0 && p.n >= p.r.max {
		return 0, false
	}
	p.n++
	if p.next == nil {
		return p.r.pause, true
	}
	wait := p.next.NextBackOff()
	return wait, now.Add(wait).Sub(p.started) <= p.r.elapsed
}

// again tells whether an error is one to try again after. An error without a status always is.
func (r *retry) again(err error) bool {
	var last *final
	var open *OpenError
	if errors.As(err, &last) || errors.As(err, &open) {
		return false
	}
	var s *StatusError
	if !errors.As(err, &s) {
		return true
	}
	ranges := r.http
	if s.GRPC {
		ranges = r.grpc
	}
	for _, codes := range ranges {
		if codes.Has(s.Code) {
			return true
		}
	}
	return ranges == nil
}

// StatusError is an error with the status that a policy's matching looks at.
type StatusError struct {
	Code int
	GRPC bool // a code of gRPC, else of HTTP
	Err  error
}

// Error is that of the cause.
func (e *StatusError) Error() string { return e.Err.Error() }

// Unwrap is the cause.
func (e *StatusError) Unwrap() error { return e.Err }

// Final marks an error that is not to be tried again after, like one of a request whose body is gone. Do answers
// the error without the mark.
func Final(err error) error {
	if err == nil {
		return nil
	}
	return &final{err}
}

type final struct{ error }

// Unwrap is the error that was marked.
func (f *final) Unwrap() error { return f.error }

func unmark(err error) error {
	if f, ok := err.(*final); ok { // only what op answered itself: what is around a mark inside says more
		return f.error
	}
	return err
}
