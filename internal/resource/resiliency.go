package resource

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Resiliency is policies, and what they are for.
type Resiliency struct {
	Resource
	Spec ResiliencySpec
}

// ResiliencySpec is Dapr's.
type ResiliencySpec struct {
	Policies struct {
		Timeouts        map[string]string         `yaml:"timeouts"`
		Retries         map[string]Retry          `yaml:"retries"`
		CircuitBreakers map[string]CircuitBreaker `yaml:"circuitBreakers"`
	} `yaml:"policies"`
	Targets struct {
		Apps       map[string]PolicyNames          `yaml:"apps"`
		Actors     map[string]PolicyNames          `yaml:"actors"`
		Components map[string]ComponentPolicyNames `yaml:"components"`
	} `yaml:"targets"`
}

// Retry is when and how often something is tried again.
type Retry struct {
	Policy      string `yaml:"policy"`      // constant, which "" means, or exponential
	Duration    string `yaml:"duration"`    // between tries of a constant one; "" means 5s
	MaxInterval string `yaml:"maxInterval"` // between tries of an exponential one; "" means 60s
	MaxRetries  *int   `yaml:"maxRetries"`  // none, and -1, mean for ever
	Matching    struct {
		HTTPStatusCodes string `yaml:"httpStatusCodes"` // what Codes reads; "" means all
		GRPCStatusCodes string `yaml:"gRPCStatusCodes"`
	} `yaml:"matching"`
}

// CircuitBreaker is when something is not tried for a while.
type CircuitBreaker struct {
	MaxRequests int    `yaml:"maxRequests"` // at once while it is half open; 0 means 1
	Interval    string `yaml:"interval"`    // after which a closed one forgets what it counted; "" means never
	Timeout     string `yaml:"timeout"`     // that it stays open; "" means 60s
	Trip        string `yaml:"trip"`        // CEL; "" means consecutiveFailures > 5
}

// PolicyNames are the policies of one target.
type PolicyNames struct {
	Timeout                 string `yaml:"timeout"`
	Retry                   string `yaml:"retry"`
	CircuitBreaker          string `yaml:"circuitBreaker"`
	CircuitBreakerScope     string `yaml:"circuitBreakerScope"`     // of actors: ScopeType, ScopeID or ScopeBoth
	CircuitBreakerCacheSize int    `yaml:"circuitBreakerCacheSize"` // breakers that are remembered of the target; 0 means 100, of actors 5000
}

// Scopes of circuit breakers of actors: one for all of a type, one for each, or both, of which each may refuse.
const (
	ScopeType = "type"
	ScopeID   = "id"
	ScopeBoth = "both"
)

// ComponentPolicyNames are those of a component, by direction.
type ComponentPolicyNames struct {
	Inbound  PolicyNames `yaml:"inbound"`
	Outbound PolicyNames `yaml:"outbound"`
}

// Bounds of what a Resiliency may say.
const (
	breakersMax   = 100_000 // of one target
	codeRangesMax = 100     // of one list
)

// Codes of HTTP and of gRPC, from the first to the last.
var (
	HTTPCodes = CodeRange{100, 599}
	GRPCCodes = CodeRange{0, 16}
)

// Validate answers every field with a value that cannot be used. Expressions in CEL are not looked at, nor whether
// there are policies of the names: those may be in another resource.
func (r Resiliency) Validate() error {
	var errs []error
	check := func(field string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("spec.%s: %w", field, err))
		}
	}
	policies, targets := r.Spec.Policies, r.Spec.Targets
	for _, name := range slices.Sorted(maps.Keys(policies.Timeouts)) {
		_, err := Duration(policies.Timeouts[name])
		check("policies.timeouts."+name, err)
	}
	for _, name := range slices.Sorted(maps.Keys(policies.Retries)) {
		policies.Retries[name].validate("policies.retries."+name, check)
	}
	for _, name := range slices.Sorted(maps.Keys(policies.CircuitBreakers)) {
		policies.CircuitBreakers[name].validate("policies.circuitBreakers."+name, check)
	}
	for _, name := range slices.Sorted(maps.Keys(targets.Apps)) {
		check("targets.apps."+name+".circuitBreakerCacheSize", targets.Apps[name].breakers())
	}
	for _, name := range slices.Sorted(maps.Keys(targets.Actors)) {
		check("targets.actors."+name+".circuitBreakerCacheSize", targets.Actors[name].breakers())
		check("targets.actors."+name+".circuitBreakerScope", targets.Actors[name].scope())
	}
	return errors.Join(errs...)
}

func (r Retry) validate(field string, check func(string, error)) {
	if !r.Constant() && !strings.EqualFold(r.Policy, "exponential") {
		check(field+".policy", fmt.Errorf("%q is neither constant nor exponential", r.Policy))
	}
	_, err := OptionalDuration(r.MaxInterval, 0)
	check(field+".maxInterval", err)
	pause, err := OptionalDuration(r.Duration, time.Second)
	check(field+".duration", err)
	switch endless := r.MaxRetries == nil || *r.MaxRetries < 0; {
	case r.MaxRetries != nil && *r.MaxRetries < -1:
		check(field+".maxRetries", fmt.Errorf("%d is less than -1, which means for ever", *r.MaxRetries))
	case endless && err == nil && r.Constant() && pause == 0:
		check(field+".duration", errors.New("without a pause, what is tried for ever would take a processor"))
	}
	_, err = Codes(r.Matching.HTTPStatusCodes, HTTPCodes)
	check(field+".matching.httpStatusCodes", err)
	_, err = Codes(r.Matching.GRPCStatusCodes, GRPCCodes)
	check(field+".matching.gRPCStatusCodes", err)
}

// Constant tells whether the pause is always the same.
func (r Retry) Constant() bool { return r.Policy == "" || strings.EqualFold(r.Policy, "constant") }

func (b CircuitBreaker) validate(field string, check func(string, error)) {
	if b.MaxRequests < 0 || int64(b.MaxRequests) > 1<<32-1 {
		check(field+".maxRequests", fmt.Errorf("%d is no number of requests", b.MaxRequests))
	}
	_, err := OptionalDuration(b.Interval, 0)
	check(field+".interval", err)
	_, err = OptionalDuration(b.Timeout, 0)
	check(field+".timeout", err)
}

func (n PolicyNames) breakers() error {
	if n.CircuitBreakerCacheSize < 0 || n.CircuitBreakerCacheSize > breakersMax {
		return fmt.Errorf("%d is not between 0 and %d", n.CircuitBreakerCacheSize, breakersMax)
	}
	return nil
}

func (n PolicyNames) scope() error {
	switch n.CircuitBreakerScope {
	case ScopeType, ScopeID, ScopeBoth:
		return nil
	case "":
		if n.CircuitBreaker == "" {
			return nil
		}
	}
	return fmt.Errorf("%q is none of type, id and both", n.CircuitBreakerScope)
}

// Duration reads a duration as Dapr writes it: like 1m30s, or a number of milliseconds. It is not negative.
func Duration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if ms, notNumber := strconv.ParseInt(s, 10, 32); notNumber == nil {
		d, err = time.Duration(ms)*time.Millisecond, nil
	}
	switch {
	case err != nil:
		return 0, fmt.Errorf("%q is no duration like 5s", s)
	case d < 0:
		return 0, fmt.Errorf("%s is negative", s)
	}
	return d, nil
}

// OptionalDuration is Duration, and missing for "".
func OptionalDuration(s string, missing time.Duration) (time.Duration, error) {
	if s == "" {
		return missing, nil
	}
	return Duration(s)
}

// CodeRange is status codes, from the first to the last.
type CodeRange struct{ First, Last int }

// Has tells whether a code is one of them.
func (r CodeRange) Has(code int) bool { return r.First <= code && code <= r.Last }

// Codes reads a list of codes and ranges, like 429,500-599, of those that there are. "" is nil.
func Codes(list string, all CodeRange) ([]CodeRange, error) {
	var ranges []CodeRange
	for part := range strings.SplitSeq(list, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		switch {
		case err != nil || err2 != nil:
			return nil, fmt.Errorf("%q is neither a code nor a range like %d-%d", part, all.First, all.Last)
		case !all.Has(from) || !all.Has(to) || from > to:
			return nil, fmt.Errorf("%q is no range between %d and %d", part, all.First, all.Last)
		case len(ranges) == codeRangesMax:
			return nil, fmt.Errorf("more than %d codes and ranges", codeRangesMax)
		}
		ranges = append(ranges, CodeRange{from, to})
	}
	return ranges, nil
}
