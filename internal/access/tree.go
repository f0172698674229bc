package access

import (
	"strings"

	"github.com/quipu-run/quipu/internal/resource"
)

// rule is an operation that is allowed or denied.
type rule struct {
	allow bool
	any   bool     // verb
	verbs []string // in capitals
}

func newRule(o resource.Operation) *rule {
	r := &rule{allow: resource.Allows(o.Action)}
	for _, verb := range o.Verbs {
		r.any = r.any || verb == "*"
		r.verbs = append(r.verbs, strings.ToUpper(verb))
	}
	return r
}

// node is a segment of the operations of a policy. Which operation is found is what Dapr finds, though it takes knowing:
//   - an operation holds for all that is below it too: /op for /op/a;
//   - * as the last segment is any one segment, or none; in the middle it is nothing;
//   - ** as the last segment is any number of segments, or none; in the middle it is any one;
//   - * inside of a segment is any characters of that segment;
//   - of operations that begin alike the first of the list is followed, and there is no way back: after /a/b* the
//     operation /a/bc/d is not found.
type node struct {
	pattern string
	rule    *rule // nil: nothing ends here
	below   []*node
}

// put adds an operation; of two with one name the first counts.
func (n *node) put(operation string, r *rule) {
	for segment := range strings.SplitSeq(operation[1:], "/") {
		n = n.child(segment)
	}
	if n.rule == nil {
		n.rule = r
	}
}

func (n *node) child(pattern string) *node {
	for _, c := range n.below {
		if c.pattern == pattern {
			return c
		}
	}
	c := &node{pattern: pattern}
	n.below = append(n.below, c)
	return c
}

// find answers the rule of an operation, nil if there is none.
func (n *node) find(operation string) *rule {
	rest := operation[1:]
	for last := false; !last; {
		var segment string
		var more bool
		segment, rest, more = strings.Cut(rest, "/")
		last = !more
		if n = n.match(segment, last); n == nil {
			return nil
		}
		if n.rule != nil && (last || n.pattern != "*") {
			return n.rule
		}
	}
	if n = n.match("*", true); n == nil {
		return nil
	}
	return n.rule
}

func (n *node) match(segment string, last bool) *node {
	for _, c := range n.below {
		switch {
		case c.pattern == segment, c.pattern == "**":
			return c
		case c.pattern == "*":
			if last {
				return c
			}
		case wild(c.pattern, segment):
			return c
		}
	}
	return nil
}

// wild tells whether a text is of a pattern in which * is any characters. It takes at most the product of their lengths.
func wild(pattern, text string) bool {
	star, from := -1, 0 // where to try again
	p, t := 0, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, t
			p++
		case p < len(pattern) && pattern[p] == text[t]:
			p++
			t++
		case star >= 0:
			from++
			p, t = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
