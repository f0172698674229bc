package workflow

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/quipu-run/quipu"
)

// DescribeKey is a key of the view as people know it; "" for the end of what belongs together.
func DescribeKey(key string) string {
	kinds := map[string]string{byHead: "", byStatic: "start of ", byInput: "input of ", byHistory: "history of ", byInbox: "inbox of ", byCustom: "custom status of ", byResult: "result of "}
	if len(key) < 2 {
		return ""
	}
	kind, rest := key[:2], key[2:]
	app, id, ok := strings.Cut(rest, "\x00")
	if !ok {
		return ""
	}
	if kind == byPin {
		return fmt.Sprintf("revision %s of %s, in use by executions", id, app)
	}
	id, part, _ := strings.Cut(id, "\x00")
	if strings.ContainsFunc(id, unicode.IsControl) {
		return ""
	}
	what := fmt.Sprintf("workflow %s of %s", id, app)
	if kind == byTimer {
		if part == "" {
			return "timers of " + what
		}
		return fmt.Sprintf("timer %s of %s", strings.TrimPrefix(part, "\x01"), what)
	}
	prefix, known := kinds[kind]
	if !known {
		return ""
	}
	return prefix + what
}

// DescribeOp is what an operation does, without what events and messages say.
func DescribeOp(op []byte) string {
	if len(op) == 0 {
		return errForm.Error()
	}
	switch op[0] {
	case opStep:
		if s, err := decodeStep(op[1:]); err == nil {
			return s.describe()
		}
	case opPurge:
		if p, err := decodePurge(op[1:]); err == nil {
			return "forget " + DescribeKey(byHead+p.name)
		}
	}
	return errForm.Error()
}

func (s *step) describe() string {
	what := DescribeKey(byHead + s.name)
	var parts []string
	add := func(n int, one string) {
		if n == 1 {
			parts = append(parts, "1 "+one)
		} else if n > 1 {
			parts = append(parts, fmt.Sprintf("%d %ss", n, one))
		}
	}
	if s.static != nil {
		what = "start " + what
	} else {
		add(len(s.messages), "message")
	}
	add(len(s.events), "event")
	add(len(s.timers), "timer")
	if s.head.status.Ended() && !s.prior.status.Ended() {
		parts = append(parts, strings.ToLower(string(s.head.status)))
	}
	if len(parts) == 0 {
		return what
	}
	return what + ": " + strings.Join(parts, ", ")
}

// DescribeEffect is what an operation of a user does: the start of an instance, with its input, or a message to one. Ids that are made
// are others each time, and times are in messages, so neither is told.
func DescribeEffect(op []byte) (what, value string, ok bool) {
	if len(op) == 0 || op[0] != opStep {
		return "", "", false
	}
	s, err := decodeStep(op[1:])
	k, _ := parseName(s.name)
	switch {
	case err != nil:
		return "", "", false
	case s.static != nil:
		return "start a workflow of " + k.App, string(s.input), true
	case len(s.messages) > 0 && len(s.events) == 0 && s.head.status != quipu.WorkflowPending:
		return "a message to " + DescribeKey(byHead+s.name), "", true
	}
	return "", "", false
}
