package resiliency

import (
	"fmt"

	"github.com/google/cel-go/cel"
)

// Limits of an expression.
const (
	tripBytesMax = 4 << 10
	tripCostMax  = 10_000 // steps of one evaluation
)

// failuresDefault in a row are borne, if nothing else is said.
const failuresDefault = 5

// tripOf compiles when a breaker opens: CEL over its counts, asked after each failure while it is closed. An expression
// that cannot be evaluated, because it divides by zero, does not open it.
func tripOf(text string) (func(counts) bool, error) {
	if text == "" {
		return func(c counts) bool { return c.failuresInRow > failuresDefault }, nil
	}
	if len(text) > tripBytesMax {
		return nil, fmt.Errorf("it has %d bytes; the most is %d", len(text), tripBytesMax)
	}
	// The counts are integers, but declared as anything: then they may be compared with 0.6, as in Dapr.
	env, err := cel.NewEnv(cel.Variable("requests", cel.DynType),
		cel.Variable("totalSuccesses", cel.DynType), cel.Variable("totalFailures", cel.DynType),
		cel.Variable("consecutiveSuccesses", cel.DynType), cel.Variable("consecutiveFailures", cel.DynType))
	if err != nil {
		return nil, fmt.Errorf("make an environment for CEL: %w", err)
	}
	ast, issues := env.Compile(text)
	if issues.Err() != nil {
		return nil, issues.Err()
	}
	if kind := ast.OutputType(); !kind.IsExactType(cel.BoolType) && !kind.IsExactType(cel.DynType) {
		return nil, fmt.Errorf("%s is a %s, not true or false", text, kind)
	}
	program, err := env.Program(ast, cel.CostLimit(tripCostMax))
	if err != nil {
		return nil, err
	}
	return func(c counts) bool {
		out, _, err := program.Eval(map[string]any{"requests": c.requests, "totalSuccesses": c.successes, "totalFailures": c.failures,
			"consecutiveSuccesses": c.successesInRow, "consecutiveFailures": c.failuresInRow})
		return err == nil && out.Value() == true
	}, nil
}
