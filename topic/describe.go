package topic

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/quipu-run/quipu"
)

// DescribeKey is a key of the view as people know it.
func DescribeKey(key string) string {
	kinds := map[string]string{headPrefix: "topic ", basePrefix: "start of topic ", declPrefix: "declaration of topic ",
		delayedPrefix: "delayed message ", subPrefix: "subscription "}
	for prefix, what := range kinds {
		if rest, ok := strings.CutPrefix(key, prefix); ok {
			return what + strings.ReplaceAll(rest, "\x00", " ")
		}
	}
	return ""
}

// DescribeOp is what an operation does, without the data of events.
func DescribeOp(op []byte) string {
	if len(op) == 0 {
		return ""
	}
	r := &reader{rest: op[1:]}
	switch op[0] {
	case opPublish:
		return "publish to " + r.message().Topic
	case opDelay:
		r.uint()
		return "publish later to " + r.message().Topic
	case opCancel:
		r.uint()
		return "take back a message for " + r.str()
	case opSettle:
		topic, name, done := r.str(), r.str(), r.uints()
		return fmt.Sprintf("acknowledge %d events of %s for %s", len(done), topic, name)
	}
	return ""
}

// DescribeEvents are the events that an operation publishes.
func DescribeEvents(op []byte) []quipu.CallEvent {
	if len(op) == 0 || op[0] != opPublish && op[0] != opDelay {
		return nil
	}
	r := &reader{rest: op[1:]}
	if op[0] == opDelay {
		r.uint()
	}
	m := r.message()
	return []quipu.CallEvent{{Topic: m.Topic, ID: m.ID, Size: int64(len(m.Data))}}
}

// DescribeEffect is what an operation of a user publishes, without what is another each time: id, time, trace. false for one of
// the platform's own, such as an acknowledgement.
func DescribeEffect(op []byte) (what, value string, ok bool) {
	if len(op) == 0 || op[0] != opPublish && op[0] != opDelay {
		return "", "", false
	}
	r := &reader{rest: op[1:]}
	if what = "publish to "; op[0] == opDelay {
		r.uint()
		what = "publish later to "
	}
	m := r.message()
	if m.ContentType != quipu.MediaCloudEvent {
		return what + m.Topic, string(m.Data), true
	}
	var event map[string]any
	if json.Unmarshal(m.Data, &event) != nil {
		return what + m.Topic, string(m.Data), true
	}
	if kind, _ := event["type"].(string); strings.HasPrefix(kind, "dev.quipu.") {
		return "", "", false
	}
	for _, name := range []string{"id", "time", "traceid", "traceparent", "tracestate"} {
		delete(event, name)
	}
	text, err := json.Marshal(event)
	return what + m.Topic, string(text), err == nil
}
