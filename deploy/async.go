package deploy

import (
	"strings"
	"unicode"

	"github.com/quipu-run/quipu"
)

// checkAsync refuses rules for calls that nobody waits for which cannot be. Whether a function that is named is deployed
// may change later: then its dead-letter topic gets what is for it.
func (m *manifest) checkAsync(i int) error {
	name, s := m.functions[i].Metadata.Name, &m.functions[i].Spec.Async
	fault := func(format string, args ...any) error {
		return m.fault(i, []string{"spec", "async"}, "async."+format, args...)
	}
	if err := checkRetry(s.Retry, fault); err != nil {
		return err
	}
	if s.MaxAge <= 0 || s.MaxAge.Std() > quipu.AsyncMaxAgeMax {
		return fault("maxAge is %s, but must be more than 0 and at most %s", s.MaxAge.Std(), quipu.AsyncMaxAgeMax)
	}
	for field, to := range map[string]quipu.Destination{"onSuccess": s.OnSuccess, "onFailure": s.OnFailure} {
		if to == (quipu.Destination{}) {
			if m.has(i, "spec", "async", field) {
				return fault("%s must name a function or a topic", field)
			}
			continue
		}
		switch {
		case to.Function != "" && to.Topic != "":
			return fault("%s names a function and a topic, but can be only one", field)
		case to.Function == name:
			return fault("%s of function %q is itself, which would have no end", field, name)
		case to.Function != "" && !nameForm.MatchString(to.Function):
			return fault("%s: %q cannot be the name of a function", field, to.Function)
		case to.Topic != "" && !isTopicName(to.Topic):
			return fault("%s: %q cannot be the name of a topic: %s", field, to.Topic, quipu.Codes[quipu.CodeTopicName].Why)
		}
	}
	return nil
}

// isTopicName tells whether users may publish to a topic of that name.
func isTopicName(name string) bool {
	return name != "" && len(name) <= quipu.TopicNameMax && !strings.HasPrefix(name, quipu.PlatformTopicStart) && !strings.ContainsFunc(name, unicode.IsControl)
}
