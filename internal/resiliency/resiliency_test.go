package resiliency

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	yaml "go.yaml.in/yaml/v3"

	"github.com/quipu-run/quipu/internal/clock"
	"github.com/quipu-run/quipu/internal/resource"
)

var errBroken = errors.New("broken")

func spec(t testing.TB, name, text string) resource.Resiliency {
	t.Helper()
	r := resource.Resiliency{Resource: resource.Resource{Name: name}}
	if err := yaml.Unmarshal([]byte(text), &r.Spec); err != nil {
		t.Fatal(err)
	}
	return r
}

func policies(t testing.TB, texts ...string) *Policies {
	t.Helper()
	var all []resource.Resiliency
	for i, text := range texts {
		all = append(all, spec(t, fmt.Sprintf("r%d", i+1), text))
	}
	p, err := New(all, Options{Clock: &clock.Wall{}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// story runs an operation under a policy on a clock of its own, and tells when each attempt began.
func story(t *testing.T, p func() *Policy, op func(attempt int) error) (begun []time.Duration, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		policy, start := p(), time.Now()
		err = policy.Do(t.Context(), func(context.Context) error {
			begun = append(begun, time.Since(start))
			return op(len(begun))
		})
	})
	return begun, err
}

func always(int) error { return errBroken }

func TestWhereNothingIsSaidAnOperationRunsOnce(t *testing.T) {
	for name, p := range map[string]*Policy{
		"no policies":   (*Policies)(nil).For(App("a", "/")),
		"no resources":  policies(t).For(App("a", "/")),
		"other targets": policies(t, "{policies: {timeouts: {t: 1s}}, targets: {apps: {b: {timeout: t}}}}").For(App("a", "/")),
	} {
		runs := 0
		err := p.Do(t.Context(), func(context.Context) error { runs++; return errBroken })
		if p != nil || runs != 1 || err != errBroken || p.Retries() {
			t.Errorf("%s: %d runs, %v", name, runs, err)
		}
	}
}

func TestAConstantRetryPausesTheSameAndEnds(t *testing.T) {
	text := "{policies: {retries: {r: {policy: constant, duration: 2s, maxRetries: 3}}}, targets: {apps: {a: {retry: r}}}}"
	begun, err := story(t, func() *Policy { return policies(t, text).For(App("a", "/")) }, always)
	if !errors.Is(err, errBroken) || !slices.Equal(begun, []time.Duration{0, 2 * time.Second, 4 * time.Second, 6 * time.Second}) {
		t.Errorf("%v, %v", begun, err)
	}
	begun, err = story(t, func() *Policy { return policies(t, text).For(App("a", "/")) }, func(n int) error {
		if n < 3 {
			return errBroken
		}
		return nil
	})
	if err != nil || len(begun) != 3 {
		t.Errorf("%v, %v: it did not end with the first success", begun, err)
	}
}

func TestAnExponentialRetryPausesLongerUpToItsMaximumAndEndsAfterAQuarterOfAnHour(t *testing.T) {
	text := "{policies: {retries: {r: {policy: exponential, maxInterval: 10s, maxRetries: -1}}}, targets: {apps: {a: {retry: r}}}}"
	begun, err := story(t, func() *Policy { return policies(t, text).For(App("a", "/")) }, always)
	if !errors.Is(err, errBroken) || len(begun) < 50 {
		t.Fatalf("%d attempts, %v", len(begun), err)
	}
	if last := begun[len(begun)-1]; last > 15*time.Minute || last < 14*time.Minute {
		t.Errorf("the last attempt was after %s", last)
	}
	for i := 1; i < len(begun); i++ {
		pause, centre := begun[i]-begun[i-1], 500*time.Millisecond
		for range i - 1 {
			centre = min(centre*3/2, 10*time.Second)
		}
		if pause < centre/2 || pause > centre*3/2+time.Millisecond {
			t.Errorf("pause %d is %s, not about %s", i, pause, centre)
		}
	}
}

func TestARetryForEverEndsWithItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policies(t, "{policies: {retries: {r: {duration: 1s}}}, targets: {apps: {a: {retry: r}}}}").For(App("a", "/"))
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second+time.Millisecond)
		defer cancel()
		runs := 0
		err := p.Do(ctx, func(context.Context) error { runs++; return errBroken })
		if runs != 101 || !errors.Is(err, errBroken) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%d runs, %v", runs, err)
		}
	})
}

func TestMatchingSaysWhichStatusesAreTriedAgain(t *testing.T) {
	matching := "{policies: {retries: {r: {maxRetries: 2, matching: {httpStatusCodes: '429,500-599', gRPCStatusCodes: '14'}}}}, targets: {apps: {a: {retry: r}}}}"
	all := "{policies: {retries: {r: {maxRetries: 2}}}, targets: {apps: {a: {retry: r}}}}"
	for _, c := range []struct {
		name, text string
		err        error
		attempts   int
	}{
		{"in a range", matching, &StatusError{Code: 503, Err: errBroken}, 3},
		{"in the list", matching, &StatusError{Code: 429, Err: errBroken}, 3},
		{"neither", matching, &StatusError{Code: 404, Err: errBroken}, 1},
		{"of gRPC", matching, &StatusError{Code: 14, GRPC: true, Err: errBroken}, 3},
		{"another of gRPC", matching, &StatusError{Code: 5, GRPC: true, Err: errBroken}, 1},
		{"inside of another error", matching, fmt.Errorf("invoke: %w", &StatusError{Code: 404, Err: errBroken}), 1},
		{"no status", matching, errBroken, 3},
		{"no matching", all, &StatusError{Code: 404, Err: errBroken}, 3},
		{"final", all, Final(errBroken), 1},
	} {
		begun, err := story(t, func() *Policy { return policies(t, c.text).For(App("a", "/")) }, func(int) error { return c.err })
		if len(begun) != c.attempts || !errors.Is(err, errBroken) {
			t.Errorf("%s: %d attempts, not %d; %v", c.name, len(begun), c.attempts, err)
		}
		if _, marked := err.(*final); marked {
			t.Errorf("%s: the mark is not for who called", c.name)
		}
	}
}

func TestEachAttemptHasTheWholeTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policies(t, "{policies: {timeouts: {t: 5s}, retries: {r: {duration: 1s, maxRetries: 2}}}, targets: {apps: {a: {timeout: t, retry: r}}}}").For(App("a", "/"))
		start, runs := time.Now(), 0
		err := p.Do(t.Context(), func(ctx context.Context) error {
			runs++
			<-ctx.Done()
			return fmt.Errorf("%w: %w", ctx.Err(), errBroken)
		})
		var timeout *TimeoutError
		if !errors.As(err, &timeout) || timeout.After != 5*time.Second || !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errBroken) {
			t.Errorf("%v", err)
		}
		if took := time.Since(start); runs != 3 || took != 17*time.Second {
			t.Errorf("%d attempts in %s", runs, took)
		}
	})
}

func TestACallersOwnDeadlineIsNoTimeoutOfThePolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policies(t, "{policies: {timeouts: {t: 5s}}, targets: {apps: {a: {timeout: t}}}}").For(App("a", "/"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := p.Do(ctx, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		var timeout *TimeoutError
		if errors.As(err, &timeout) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	})
}

func TestOutcomesAreKeptThoughTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policies(t, "{policies: {timeouts: {t: 5s}}, targets: {apps: {a: {timeout: t}}}}").For(App("a", "/"))
		if err := p.Do(t.Context(), func(ctx context.Context) error { <-ctx.Done(); return nil }); err != nil {
			t.Errorf("it succeeded, if late: %v", err)
		}
	})
}

const breakerText = "{policies: {circuitBreakers: {b: {maxRequests: 2, timeout: 30s, trip: consecutiveFailures >= 3}}}, targets: {apps: {a: {circuitBreaker: b, circuitBreakerCacheSize: 2}}}}"

// outcomes runs one operation for each letter: f fails, s succeeds; and answers which were run, as - for those that were not.
func outcomes(t *testing.T, p *Policies, target Target, letters string) string {
	t.Helper()
	var seen strings.Builder
	for _, letter := range letters {
		mark := '-'
		err := p.For(target).Do(t.Context(), func(context.Context) error {
			if mark = letter; letter == 'f' {
				return errBroken
			}
			return nil
		})
		var open *OpenError
		if (mark == '-') != errors.As(err, &open) {
			t.Fatalf("%c: %v", mark, err)
		}
		seen.WriteRune(mark)
	}
	return seen.String()
}

func TestABreakerOpensAfterFailuresAndClosesAfterSuccesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, a := policies(t, breakerText), App("a", "a:/")
		steps := []struct {
			wait          time.Duration
			letters, want string
		}{
			{0, "ffsffs", "ffsffs"},          // never three in a row
			{0, "fffss", "fff--"},            // now
			{30 * time.Second, "s", "-"},     // not before the time is over
			{time.Nanosecond, "fs", "f-"},    // half open: one failure opens it again
			{30*time.Second + 1, "ss", "ss"}, // two successes close it
			{0, "ffs", "ffs"},                // and it counts from nothing
		}
		for i, step := range steps {
			time.Sleep(step.wait)
			if got := outcomes(t, p, a, step.letters); got != step.want {
				t.Fatalf("step %d: %s became %s, not %s", i, step.letters, got, step.want)
			}
		}
	})
}

func TestAHalfOpenBreakerLetsOnlyAFewPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policies(t, breakerText).For(App("a", "a:/"))
		for range 3 {
			_ = p.Do(t.Context(), func(context.Context) error { return errBroken })
		}
		time.Sleep(31 * time.Second)
		release := make(chan struct{})
		for range 2 {
			go func() { _ = p.Do(t.Context(), func(context.Context) error { <-release; return nil }) }()
		}
		synctest.Wait()
		err := p.Do(t.Context(), func(context.Context) error { t.Error("a third passed"); return nil })
		var open *OpenError
		if !errors.As(err, &open) || open.State != HalfOpen {
			t.Errorf("%v", err)
		}
		close(release)
		synctest.Wait()
		if err := p.Do(t.Context(), func(context.Context) error { return nil }); err != nil {
			t.Errorf("two succeeded, and it is not closed: %v", err)
		}
	})
}

func TestWhatBeganBeforeABreakerChangedIsNotCountedAfter(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	m := machine{settings: settings{probes: 1, pause: time.Minute, trip: func(c counts) bool { return c.failuresInRow >= 1 }}}
	m.begin(Closed, now)
	late, _ := m.enter(now)
	later, _ := m.enter(now)
	one, _ := m.enter(now)
	m.leave(one, failed, now)
	now = now.Add(time.Minute + 1)
	probe, ok := m.enter(now)
	if !ok || m.state != HalfOpen {
		t.Fatalf("%s", m.state)
	}
	m.leave(late, succeeded, now)
	m.leave(later, failed, now)
	if m.state != HalfOpen || m.counts != (counts{requests: 1}) {
		t.Errorf("%s with %+v", m.state, m.counts)
	}
	if m.leave(probe, succeeded, now); m.state != Closed {
		t.Errorf("%s", m.state)
	}
}

func TestCountsInARowEndWithTheOtherOutcome(t *testing.T) {
	var seen []counts
	m := machine{settings: settings{probes: 1, pause: time.Minute, trip: func(c counts) bool { seen = append(seen, c); return false }}}
	for _, o := range []outcome{succeeded, succeeded, failed, failed, succeeded, failed} {
		epoch, _ := m.enter(time.Time{})
		m.leave(epoch, o, time.Time{})
	}
	want := []counts{{3, 2, 1, 0, 1}, {4, 2, 2, 0, 2}, {6, 3, 3, 0, 1}}
	if !slices.Equal(seen, want) {
		t.Errorf("%+v", seen)
	}
}

func TestABreakerThatSaysNoTimeStaysOpenForAMinute(t *testing.T) {
	for _, text := range []string{"{}", "{timeout: 0s}"} {
		p := policies(t, "{policies: {circuitBreakers: {b: "+text+"}}}")
		if s := p.breakers["b"].policy; s.pause != time.Minute || s.probes != 1 || s.interval != 0 {
			t.Errorf("%s: %+v", text, s)
		}
	}
}

func TestWhoHangsUpIsNotMadeToWait(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p := policies(t, "{policies: {retries: {r: {duration: 1h}}}, targets: {apps: {a: {retry: r}}}}").For(App("a", "/"))
	if err := p.Do(ctx, func(context.Context) error { cancel(); return errBroken }); err != errBroken {
		t.Error(err)
	}
}

func TestTheFirstPauseIsNoLongerThanTheLongest(t *testing.T) {
	text := "{policies: {retries: {r: {policy: exponential, maxInterval: 100ms, maxRetries: 5}}}, targets: {apps: {a: {retry: r}}}}"
	begun, _ := story(t, func() *Policy { return policies(t, text).For(App("a", "/")) }, always)
	if len(begun) != 6 || begun[1] > 151*time.Millisecond {
		t.Errorf("%v", begun)
	}
}

func TestWhoHangsUpDoesNotOpenABreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policies(t, breakerText).For(App("a", "a:/"))
		hangUp := func() {
			ctx, cancel := context.WithCancel(t.Context())
			_ = p.Do(ctx, func(context.Context) error { cancel(); return ctx.Err() })
		}
		for range 10 {
			hangUp()
		}
		for range 3 {
			if err := p.Do(t.Context(), func(context.Context) error { return errBroken }); err != errBroken {
				t.Fatal(err)
			}
		}
		time.Sleep(31 * time.Second)
		for range 10 { // half open: they do not take the places of those that find out
			hangUp()
		}
		if err := p.Do(t.Context(), func(context.Context) error { return nil }); err != nil {
			t.Error(err)
		}
	})
}

func TestAPanicIsAFailure(t *testing.T) {
	p := policies(t, breakerText).For(App("a", "a:/"))
	for range 3 {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic went nowhere")
				}
			}()
			_ = p.Do(t.Context(), func(context.Context) error { panic("bug") })
		}()
	}
	var open *OpenError
	if err := p.Do(t.Context(), func(context.Context) error { return nil }); !errors.As(err, &open) {
		t.Errorf("%v", err)
	}
}

func TestAnOpenBreakerEndsRetriesAndKeepsItsError(t *testing.T) {
	text := "{policies: {retries: {r: {duration: 1s, maxRetries: 10}}, circuitBreakers: {b: {trip: consecutiveFailures > 2}}}, targets: {apps: {a: {retry: r, circuitBreaker: b}}}}"
	begun, err := story(t, func() *Policy { return policies(t, text).For(App("a", "a:/")) }, always)
	var open *OpenError
	if len(begun) != 3 || !errors.As(err, &open) || open.State != Open || open.Target != "a" || open.Until.IsZero() {
		t.Errorf("%d attempts, %v", len(begun), err)
	}
}

func TestAClosedBreakerForgetsAfterItsInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policies(t, "{policies: {circuitBreakers: {b: {interval: 10s, trip: totalFailures >= 3}}}, targets: {apps: {a: {circuitBreaker: b}}}}")
		outcomes(t, p, App("a", "x"), "ff")
		time.Sleep(10*time.Second + 1)
		if got := outcomes(t, p, App("a", "x"), "ffs"); got != "ffs" {
			t.Error(got)
		}
		if got := outcomes(t, p, App("a", "x"), "fs"); got != "f-" {
			t.Error(got)
		}
	})
}

func TestTripIsAnExpressionOverCounts(t *testing.T) {
	c := counts{requests: 10, successes: 4, failures: 6, successesInRow: 0, failuresInRow: 2}
	for text, want := range map[string]bool{
		"":                                         false,
		"consecutiveFailures >= 2":                 true,
		"requests > 9 && totalFailures > 6":        false,
		"totalFailures / totalSuccesses >= 1":      true,
		"totalFailures >= 0.6":                     true,  // integers and fractions compare
		"totalFailures / consecutiveSuccesses > 1": false, // cannot be evaluated
		"totalSuccesses == 4":                      true,
	} {
		trip, err := tripOf(text)
		if err != nil || trip(c) != want {
			t.Errorf("%s: not %t, %v", text, want, err)
		}
	}
	costly := "[1,2,3,4,5,6,7,8,9]"
	trip, err := tripOf(costly + ".all(a, " + costly + ".all(b, " + costly + ".all(c, " + costly + ".all(d, " + costly + ".all(e, " + costly + ".all(f, true))))))")
	if err != nil || trip(c) {
		t.Errorf("half a million steps were taken: %v", err)
	}
	six := counts{failuresInRow: 6}
	if trip, _ := tripOf(""); !trip(six) {
		t.Error("six in a row are too many, if nothing is said")
	}
	for _, text := range []string{"consecutiveFailures >", "failures > 5", "1 + 1", `"yes"`, strings.Repeat("(", tripBytesMax+1)} {
		if _, err := tripOf(text); err == nil {
			t.Errorf("%.20s was taken", text)
		}
		_, err := New([]resource.Resiliency{spec(t, "bad", "{policies: {circuitBreakers: {b: {trip: '"+text+"'}}}}")}, Options{Clock: &clock.Wall{}})
		if err == nil || !strings.Contains(err.Error(), `resiliency "bad": spec.policies.circuitBreakers.b: trip: `) {
			t.Errorf("%.20s: %v", text, err)
		}
	}
}

func TestEachEndpointHasABreakerAndAFewAreRemembered(t *testing.T) {
	p := policies(t, breakerText) // remembers two
	outcomes(t, p, App("a", "one"), "fff")
	if got := outcomes(t, p, App("a", "two"), "s"); got != "s" {
		t.Errorf("another endpoint: %s", got)
	}
	if got := outcomes(t, p, App("a", "one"), "s"); got != "-" {
		t.Errorf("the same endpoint: %s", got)
	}
	outcomes(t, p, App("a", "three"), "s") // two was not used for longest
	if got := outcomes(t, p, App("a", "one"), "s"); got != "-" {
		t.Errorf("the newer was forgotten: %s", got)
	}
	outcomes(t, p, App("a", "four"), "s")
	outcomes(t, p, App("a", "five"), "s")
	if got := outcomes(t, p, App("a", "one"), "s"); got != "s" {
		t.Errorf("more than two were remembered: %s", got)
	}
	for i := range 10 * targetsMax { // whoever is invoked, memory stays
		policies := p.For(App(fmt.Sprint("app", i), "/"))
		if policies != nil {
			t.Fatal("an app of no resource has a policy")
		}
	}
	same := policies(t, "{policies: {timeouts: {t: 1s}}, targets: {apps: {a: {timeout: t}}}}")
	if same.For(App("a", "one")) != same.For(App("a", "two")) {
		t.Error("without a breaker all endpoints are one")
	}
	d := policies(t, "{policies: {circuitBreakers: {DefaultAppCircuitBreakerPolicy: {}}}}")
	for i := range 3 * targetsMax {
		d.For(App(fmt.Sprint("app", i), "/"))
	}
	if n := len(d.appDefault.made.at); n != targetsMax || d.appDefault.made.order.Len() != n {
		t.Errorf("%d policies are remembered", n)
	}
}

// A breaker of a type of actors is that of all of them, of each, or there are both, and each may refuse.
func TestABreakerOfActorsHasAScope(t *testing.T) {
	const text = "{policies: {circuitBreakers: {b: {trip: consecutiveFailures >= 2}}}, targets: {actors: {cat: {circuitBreaker: b, circuitBreakerScope: %s, circuitBreakerCacheSize: 2}}}}"
	tom, kit := Actor("cat", "tom"), Actor("cat", "kit")
	for scope, want := range map[string][2]string{"id": {"-", "s"}, "type": {"-", "-"}, "both": {"-", "-"}} {
		p := policies(t, fmt.Sprintf(text, scope))
		outcomes(t, p, tom, "ff")
		if got := [2]string{outcomes(t, p, tom, "s"), outcomes(t, p, kit, "s")}; got != want {
			t.Errorf("%s: after failures of tom, he and kit do %q, want %q", scope, got, want)
		}
	}
	p := policies(t, fmt.Sprintf(text, "both"))
	for range 2 { // of the type, never two in a row
		outcomes(t, p, tom, "f")
		outcomes(t, p, kit, "s")
	}
	if got := outcomes(t, p, tom, "s") + outcomes(t, p, kit, "s"); got != "-s" {
		t.Errorf("with both, one that fails alone: %s", got)
	}
	each := policies(t, fmt.Sprintf(text, "id"))
	outcomes(t, each, tom, "ff")
	outcomes(t, each, kit, "s")
	outcomes(t, each, Actor("cat", "ben"), "s")
	if got := outcomes(t, each, tom, "s"); got != "s" {
		t.Errorf("more than two were remembered: %s", got)
	}
}

// A breaker that let somebody pass whom another refused has learned nothing by it: it is not half open for ever.
func TestWhatABreakerRefusesIsNoFailureOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policies(t, "{policies: {circuitBreakers: {b: {timeout: 1m, trip: consecutiveFailures >= 2}}}, targets: {actors: {cat: {circuitBreaker: b, circuitBreakerScope: both}}}}")
		tom, kit := Actor("cat", "tom"), Actor("cat", "kit")
		outcomes(t, p, tom, "ff") // both are open
		time.Sleep(61 * time.Second)
		outcomes(t, p, kit, "f") // a probe: the type is open for another minute
		if got := outcomes(t, p, tom, "sss"); got != "---" {
			t.Errorf("while the type is open: %s", got)
		}
		time.Sleep(61 * time.Second)
		if got := outcomes(t, p, tom, "sss"); got != "sss" {
			t.Errorf("then: %s", got)
		}
	})
}

// The timeout of a type is of its turns, the rest of who calls; without a resource that names it, the defaults hold.
func TestATypeOfActorsHasPolicies(t *testing.T) {
	p := policies(t, `{policies: {timeouts: {t: 1s, DefaultTimeoutPolicy: 2s}, retries: {r: {maxRetries: 7}, DefaultActorRetryPolicy: {maxRetries: 9}}},
		targets: {actors: {cat: {timeout: t, retry: r}, dog: {timeout: none}}}}`)
	for target, want := range map[Target][2]int{Actor("cat", "tom"): {0, 7}, Turn("cat"): {1, 0}, Actor("bird", "b"): {0, 9}, Turn("bird"): {2, 0}} {
		policy := p.For(target)
		if got := int(policy.timeout / time.Second); got != want[0] || (policy.retry != nil) != (want[1] > 0) || want[1] > 0 && policy.retry.max != want[1] {
			t.Errorf("%+v: %d s, %+v", target, got, policy.retry)
		}
	}
	if p.For(Actor("dog", "rex")) != nil || p.For(Turn("dog")) != nil || len(p.Warnings()) != 1 {
		t.Errorf("a type that names nothing there is: %q", p.Warnings())
	}
	p = policies(t, "{policies: {circuitBreakers: {DefaultActorCircuitBreakerPolicy: {trip: consecutiveFailures >= 1}}}}")
	if outcomes(t, p, Actor("bird", "b"), "f"); outcomes(t, p, Actor("bird", "c"), "s") != "-" {
		t.Error("by default a type has one breaker")
	}
	if outcomes(t, p, Actor("fish", "f"), "s") != "s" {
		t.Error("and each type its own")
	}
}

func TestBothDirectionsOfAComponentShareABreaker(t *testing.T) {
	p := policies(t, "{policies: {circuitBreakers: {b: {trip: consecutiveFailures >= 1}, c: {}}}, targets: {components: {s: {inbound: {circuitBreaker: b}, outbound: {circuitBreaker: b}}, o: {inbound: {circuitBreaker: b}, outbound: {circuitBreaker: c}}}}}")
	outcomes(t, p, Inbound(PubSub, "s"), "f")
	if got := outcomes(t, p, Outbound(PubSub, "s"), "s"); got != "-" {
		t.Error(got)
	}
	outcomes(t, p, Inbound(PubSub, "o"), "f")
	if got := outcomes(t, p, Outbound(PubSub, "o"), "s"); got != "s" {
		t.Errorf("another policy: %s", got)
	}
}

func TestDefaultsGoFromTheMostTellingNameToTheLeast(t *testing.T) {
	p := policies(t, `{policies: {timeouts: {DefaultTimeoutPolicy: 1s, DefaultAppTimeoutPolicy: 2s, DefaultComponentTimeoutPolicy: 3s,
		DefaultComponentOutboundTimeoutPolicy: 4s, DefaultStatestoreComponentOutboundTimeoutPolicy: 5s, own: 6s},
		retries: {DefaultRetryPolicy: {maxRetries: 7}}}, targets: {components: {mine: {outbound: {timeout: own}}}, apps: {named: {}}}}`)
	for _, c := range []struct {
		target  Target
		seconds int
	}{
		{App("any", "/"), 2}, {Outbound(StateStore, "any"), 5}, {Outbound(PubSub, "any"), 4}, {Inbound(PubSub, "any"), 3},
		{Outbound(StateStore, "mine"), 6},
	} {
		policy := p.For(c.target)
		if policy == nil || policy.timeout != time.Duration(c.seconds)*time.Second {
			t.Errorf("%+v: %+v", c.target, policy)
		}
		if own := c.target.name == "mine"; policy.Retries() == own {
			t.Errorf("%+v: what a resource names gets no defaults, all else does", c.target)
		}
	}
	if p.For(Inbound(StateStore, "mine")) != nil || p.For(App("named", "/")) != nil {
		t.Error("a target that is named has what it names")
	}
	one := policies(t, "{policies: {timeouts: {DefaultLockComponentOutboundTimeoutPolicy: 1s}}}")
	if one.For(Outbound(Lock, "any")) == nil || one.For(Inbound(Lock, "any")) != nil || one.For(App("any", "/")) != nil {
		t.Error("the default of one block and direction")
	}
	only := policies(t, "{policies: {timeouts: {DefaultTimeoutPolicy: 1s}}}")
	if only.For(App("any", "/")).timeout != time.Second || only.For(Inbound(Binding, "any")).timeout != time.Second {
		t.Error("the default of all")
	}
}

func TestResourcesAreMergedByName(t *testing.T) {
	p := policies(t, "{policies: {timeouts: {t: 1s, u: 2s}}, targets: {apps: {a: {timeout: u}, b: {timeout: later}}}}",
		"{policies: {timeouts: {t: 3s, later: 4s}}, targets: {apps: {a: {timeout: t}, c: {timeout: nowhere}}}}")
	if p.For(App("a", "/")).timeout != 3*time.Second || p.For(App("b", "/")).timeout != 4*time.Second {
		t.Errorf("%+v", p.apps)
	}
	if w := p.Warnings(); len(w) != 1 || w[0] != `resiliency "r2": target apps.c names timeout "nowhere", which there is not` {
		t.Errorf("%q", w)
	}
}

func TestBuiltInRetriesAreNotLess(t *testing.T) {
	p := policies(t, "{policies: {retries: {DaprBuiltInServiceRetries: {maxRetries: 5}, DaprBuiltInActorRetries: {maxRetries: 1}, DaprBuiltInActorNotFoundRetries: {maxRetries: 1}}}}")
	if w := p.Warnings(); len(w) != 3 || p.For(App("a", "/")) != nil {
		t.Errorf("%q", w)
	}
}

func TestABadResourceIsRefused(t *testing.T) {
	_, err := New([]resource.Resiliency{spec(t, "bad", "{policies: {timeouts: {t: soon}}}")}, Options{Clock: &clock.Wall{}})
	if err == nil || !strings.HasPrefix(err.Error(), `resiliency "bad": spec.policies.timeouts.t: `) {
		t.Error(err)
	}
}

func TestWhatPoliciesDoIsObserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []Event
		p, err := New([]resource.Resiliency{spec(t, "mine", "{policies: {timeouts: {t: 1s}, retries: {r: {duration: 1s, maxRetries: 3}}, circuitBreakers: {b: {trip: consecutiveFailures >= 2}}}, targets: {components: {s: {outbound: {timeout: t, retry: r, circuitBreaker: b}}}}}")},
			Options{Clock: &clock.Wall{}, Observe: func(e Event) { events = append(events, e) }})
		if err != nil {
			t.Fatal(err)
		}
		_ = p.For(Outbound(StateStore, "s")).Do(t.Context(), func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		of := func(k Kind, s State, activated bool) Event {
			return Event{Resource: "mine", Kind: k, Flow: FlowOutbound, Target: "Statestore_s", Status: s, Activated: activated}
		}
		want := []Event{of(KindTimeout, "", false), of(KindRetry, "", false), of(KindCircuitBreaker, Closed, false),
			of(KindTimeout, "", true), of(KindRetry, "", true), of(KindTimeout, "", true), of(KindCircuitBreaker, Open, true)}
		if !slices.Equal(events, want) {
			t.Errorf("%+v", events)
		}
	})
}

func TestPausesAreOfThePlatformsClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		skip := clock.NewSkip(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC))
		defer skip.Stop()
		text := "{policies: {retries: {r: {duration: 1h, maxRetries: 1}}, circuitBreakers: {b: {timeout: 24h, trip: consecutiveFailures >= 2}}}, targets: {apps: {a: {retry: r, circuitBreaker: b}}}}"
		all, err := New([]resource.Resiliency{spec(t, "r", text)}, Options{Clock: skip})
		if err != nil {
			t.Fatal(err)
		}
		start, done, p := time.Now(), make(chan error, 1), all.For(App("a", "/"))
		go func() { done <- p.Do(t.Context(), func(context.Context) error { return errBroken }) }()
		synctest.Wait()
		if !skip.Skip(skip.Now().Add(2 * time.Hour)) {
			t.Fatal("nobody waits for the hour")
		}
		if err := <-done; err != errBroken {
			t.Error(err)
		}
		var open *OpenError
		if err := p.Do(t.Context(), func(context.Context) error { return nil }); !errors.As(err, &open) || open.Until.Sub(skip.Now()) != 24*time.Hour {
			t.Errorf("%v until %v", err, open)
		}
		skip.Until(skip.Now().Add(24*time.Hour + 1))
		if err := p.Do(t.Context(), func(context.Context) error { return nil }); err != nil {
			t.Error(err)
		}
		if passed := time.Since(start); passed != 0 {
			t.Errorf("%s passed", passed)
		}
	})
}

func TestManyCallersAtOnceAreCountedEachOnce(t *testing.T) {
	const callers, each = 8, 500
	p := policies(t, "{policies: {circuitBreakers: {b: {trip: 'false'}}}, targets: {apps: {a: {circuitBreaker: b, circuitBreakerCacheSize: 4}}}}")
	var all sync.WaitGroup
	for n := range callers {
		all.Go(func() {
			for i := range each {
				_ = p.For(App("a", "all")).Do(t.Context(), func(context.Context) error {
					if i%2 == 0 {
						return errBroken
					}
					return nil
				})
				p.For(App("a", fmt.Sprint(n%3))) // the cache moves, and forgets none of the four
			}
		})
	}
	all.Wait()
	c := p.For(App("a", "all")).breakers[0].m.counts
	if c.requests != callers*each || c.failures != callers*each/2 || c.successes != callers*each/2 {
		t.Errorf("%+v", c)
	}
}

func BenchmarkNoPolicies(b *testing.B) {
	p := policies(b)
	ctx, op := b.Context(), func(context.Context) error { return nil }
	b.ReportAllocs()
	for b.Loop() {
		if err := p.For(Outbound(StateStore, "statestore")).Do(ctx, op); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNilPolicies(b *testing.B) {
	var p *Policies
	ctx, op := b.Context(), func(context.Context) error { return nil }
	for b.Loop() {
		if err := p.For(Outbound(StateStore, "statestore")).Do(ctx, op); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAllPolicies(b *testing.B) {
	// A node has timers that end before a policy's timeout. Without any, each timeout would wake a processor that sleeps.
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for name, text := range map[string]string{
		"retry":                 "{retry: r}",
		"breaker":               "{circuitBreaker: b}",
		"timeout":               "{timeout: t}",
		"retry+timeout+breaker": "{timeout: t, retry: r, circuitBreaker: b}",
	} {
		b.Run(name, func(b *testing.B) {
			p := policies(b, "{policies: {timeouts: {t: 5s}, retries: {r: {maxRetries: 3}}, circuitBreakers: {b: {}}}, targets: {components: {s: {outbound: "+text+"}}}}")
			ctx, op := b.Context(), func(context.Context) error { return nil }
			b.ReportAllocs()
			for b.Loop() {
				if err := p.For(Outbound(StateStore, "s")).Do(ctx, op); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
