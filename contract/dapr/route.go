package dapr

import (
	"encoding/json"
	"fmt"

	"github.com/google/cel-go/cel"
	"github.com/quipu-run/quipu"
)

// Limits of an expression.
const (
	matchBytesMax = 4 << 10
	matchCostMax  = 100_000 // steps of one evaluation
)

// Router chooses the paths of a subscription's events.
type Router struct {
	rules []compiled
	path  string
}

type compiled struct {
	program cel.Program
	path    string
}

// NewRouter compiles the expressions of a subscription: CEL over event, the envelope. CodeAppCallback if one cannot
// be used, or is never true or false.
func NewRouter(t quipu.TopicTrigger) (*Router, error) {
	env, err := cel.NewEnv(cel.Variable("event", cel.DynType))
	if err != nil {
		return nil, fmt.Errorf("make an environment for CEL: %w", err)
	}
	r := &Router{path: t.Path}
	for _, route := range t.Routes {
		p, err := compile(env, route.Match)
		if err != nil {
			return nil, callback("the subscription to topic %q has a match that cannot be used: %v", t.Name, err)
		}
		r.rules = append(r.rules, compiled{p, route.Path})
	}
	return r, nil
}

func compile(env *cel.Env, match string) (cel.Program, error) {
	if len(match) > matchBytesMax {
		return nil, fmt.Errorf("it has %d bytes; the most is %d", len(match), matchBytesMax)
	}
	ast, issues := env.Compile(match)
	if issues.Err() != nil {
		return nil, issues.Err()
	}
	if kind := ast.OutputType(); !kind.IsExactType(cel.BoolType) && !kind.IsExactType(cel.DynType) {
		return nil, fmt.Errorf("%s is a %s, not true or false", match, kind)
	}
	return env.Program(ast, cel.CostLimit(matchCostMax))
}

// Path answers where an event goes: the path of the first rule that is true of it, else the default; ok is false if
// there is none, and then the event is none of the application's business. A rule that fails, because the event
// lacks what it looks at, is not true.
func (r *Router) Path(event []byte) (path string, ok bool) {
	if len(r.rules) > 0 {
		var e map[string]any
		if json.Unmarshal(event, &e) == nil { // else only the default can be meant
			input := map[string]any{"event": e}
			for _, rule := range r.rules {
				if out, _, err := rule.program.Eval(input); err == nil && out.Value() == true {
					return rule.path, true
				}
			}
		}
	}
	return r.path, r.path != ""
}
