package crashtest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/quipu-run/quipu"
)

// State is all that a run has left, as far as runs are compared by it.
type State struct {
	Keys    map[string]string // of all stores, as store/key or store/function/key
	Events  map[Event]int     // how often
	Results []Result          // of the steps
}

// Event is one, without what is of its own in each run: id and time.
type Event struct{ Topic, Data string }

// String is what a report calls it.
func (e Event) String() string { return fmt.Sprintf("event of %s %.200s", e.Topic, e.Data) }

// Result is what a step was answered with.
type Result struct {
	Status int
	Code   quipu.Code // of the platform, if the function did not answer
	Body   string
}

func (r Result) String() string {
	if r.Code != "" {
		return string(r.Code)
	}
	return fmt.Sprintf("%d %.200q", r.Status, r.Body)
}

// Difference is one thing that is not as it should be.
type Difference struct {
	What     string `json:"what"`     // key shared/stock-7, events of paid, answer to step 2
	Expected string `json:"expected"` // as the undisturbed run left it
	Found    string `json:"found"`
}

// nothing stands for a key that is not there.
const nothing = "nothing"

// unlike is what two undisturbed runs differ in. Where names of keys or data of events do, only how many there are can be
// compared.
type unlike struct {
	what   map[string]bool
	keys   map[string]bool // that both have; nil if both have all
	topics map[string]bool
}

// names are for people.
func (u unlike) names() []string { return slices.Sorted(maps.Keys(u.what)) }

func (s State) unlike(o State) unlike {
	u := unlike{what: map[string]bool{}, topics: map[string]bool{}}
	for _, d := range s.differences(o, unlike{}) {
		u.what[d.What] = true
	}
	if !maps.EqualFunc(s.Keys, o.Keys, func(string, string) bool { return true }) {
		u.keys = map[string]bool{}
		for key := range s.Keys {
			_, u.keys[key] = o.Keys[key]
		}
	}
	for e := range s.Events {
		if s.Events[e] != o.Events[e] {
			u.topics[e.Topic] = true
		}
	}
	return u
}

// differences compares what o is with s, which it should be, but for what is ignored.
func (s State) differences(o State, ignored unlike) (all []Difference) {
	add := func(what, expected, found string) {
		if expected != found && !ignored.what[what] {
			all = append(all, Difference{what, expected, found})
		}
	}
	for _, key := range union(s.Keys, o.Keys) {
		if ignored.keys == nil || ignored.keys[key] {
			add("key "+key, show(s.Keys, key), show(o.Keys, key))
		}
	}
	if ignored.keys != nil {
		add("number of keys", strconv.Itoa(len(s.Keys)), strconv.Itoa(len(o.Keys)))
	}
	expected, found := map[string]int{}, map[string]int{}
	for _, e := range unionOf(s.Events, o.Events) {
		expected[e.Topic] += s.Events[e]
		found[e.Topic] += o.Events[e]
		if !ignored.topics[e.Topic] {
			add(e.String(), times(s.Events[e]), times(o.Events[e]))
		}
	}
	for _, topic := range union(expected, found) {
		if ignored.topics[topic] {
			add("number of events of "+topic, strconv.Itoa(expected[topic]), strconv.Itoa(found[topic]))
		}
	}
	for i, r := range s.Results {
		add("answer to step "+strconv.Itoa(i+1), r.String(), o.Results[i].String())
	}
	return all
}

func unionOf(a, b map[Event]int) []Event {
	both := maps.Clone(a)
	maps.Copy(both, b)
	return slices.SortedFunc(maps.Keys(both), func(a, b Event) int {
		return cmp.Or(strings.Compare(a.Topic, b.Topic), strings.Compare(a.Data, b.Data))
	})
}

func union[V any](a, b map[string]V) []string {
	both := maps.Clone(a)
	maps.Copy(both, b)
	return slices.Sorted(maps.Keys(both))
}

func show(keys map[string]string, key string) string {
	if value, ok := keys[key]; ok {
		return fmt.Sprintf("%.200s", value)
	}
	return nothing
}

func times(n int) string {
	switch n {
	case 1:
		return "once"
	case 0:
		return "never"
	}
	return strconv.Itoa(n) + " times"
}
