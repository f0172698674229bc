package middleware

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/component"
	"golang.org/x/time/rate"
)

// Limits of a rate limit.
const (
	rateDefault = 100
	callersMax  = 10_000 // that are told apart; others share what one has
	sweepEvery  = time.Second
)

// limiter counts requests by the address and the path they come from and go to, as Dapr's does.
type limiter struct {
	clock quipu.Clock
	limit rate.Limit
	burst int

	mu    sync.Mutex // guards the fields below
	by    map[caller]*rate.Limiter
	rest  *rate.Limiter
	swept time.Time
}

type caller struct{ host, path string }

// NewRateLimit makes a middleware.http.ratelimit: what is too much is answered with 429. Metadata: maxRequestsPerSecond.
func NewRateLimit(_ context.Context, h component.Host, s component.Spec) (any, error) {
	most := float64(rateDefault)
	if said := s.Metadata.Get("maxRequestsPerSecond"); said != "" {
		var err error
		if most, err = strconv.ParseFloat(said, 64); err != nil || !(most > 0) || math.IsInf(most, 0) {
			return nil, fmt.Errorf("metadata property maxRequestsPerSecond must be a positive value, but is %.40q", said)
		}
	}
	l := &limiter{clock: h.Clock, limit: rate.Limit(most), burst: int(min(max(most, 1), math.MaxInt32)), by: map[caller]*rate.Limiter{}}
	l.rest = rate.NewLimiter(l.limit, l.burst)
	return component.Middleware(l.wrap), nil
}

func (l *limiter) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.RemoteAddr)
		if err != nil {
			host = r.RemoteAddr
		}
		if !l.allow(caller{host, r.URL.Path}) {
			w.Header().Set("X-Rate-Limit-Limit", strconv.FormatFloat(float64(l.limit), 'f', 2, 64))
			w.Header().Set("X-Rate-Limit-Duration", "1")
			refuse(w, http.StatusTooManyRequests, "You have reached maximum request limit.")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (l *limiter) allow(c caller) bool {
	now := l.clock.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.by[c]
	if one == nil {
		one = l.add(c, now)
	}
	return one.AllowN(now, 1)
}

// add begins to count a caller. One who could send all that is allowed at once need not be remembered.
func (l *limiter) add(c caller, now time.Time) *rate.Limiter {
	if len(l.by) >= callersMax && now.Sub(l.swept) >= sweepEvery {
		l.swept = now
		for other, limiter := range l.by {
			if limiter.TokensAt(now) >= float64(l.burst) {
				delete(l.by, other)
			}
		}
	}
	if len(l.by) >= callersMax {
		return l.rest
	}
	one := rate.NewLimiter(l.limit, l.burst)
	l.by[c] = one
	return one
}
