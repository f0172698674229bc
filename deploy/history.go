package deploy

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"

	"github.com/quipu-run/quipu"
)

// line is what changes about a function while its revisions do not.
type line struct {
	Version int               `json:"version"` // of this form: formatVersion
	Next    int               `json:"next"`    // number of the next new revision
	Parts   []quipu.Part      `json:"parts"`   // of the traffic, the newest revision first; never empty
	Aliases map[string]string `json:"aliases,omitempty"`
	Before  map[string]string `json:"before,omitempty"` // by revision: the one from which it took over
}

// history is a function with the revisions that are remembered. One that others may have is not changed: edit a clone.
type history struct {
	line
	name    string
	of      map[string]quipu.Function // by revision
	unsaved bool                      // its one revision is not stored by itself: it comes from an older version
}

func newHistory(name string) *history {
	return &history{line: line{Version: formatVersion, Next: 1}, name: name, of: map[string]quipu.Function{}}
}

func (h *history) clone() *history {
	c := *h
	c.Parts, c.Aliases, c.Before, c.of = slices.Clone(h.Parts), maps.Clone(h.Aliases), maps.Clone(h.Before), maps.Clone(h.of)
	return &c
}

// head is the newest revision that has traffic.
func (h *history) head() quipu.Function { return h.of[h.Parts[0].Revision] }

// main is the revision that has most of the traffic, the newer of two with as much; "" before the first deploy.
func (h *history) main() string {
	most := quipu.Part{}
	for _, p := range h.Parts {
		if p.Percent > most.Percent {
			most = p
		}
	}
	return most.Revision
}

func (h *history) percent(revision string) int {
	for _, p := range h.Parts {
		if p.Revision == revision {
			return p.Percent
		}
	}
	return 0
}

// deploy remembers a revision, and answers what of it is remembered. Without traffic it gets some only if there is no
// other.
func (h *history) deploy(f quipu.Function, traffic bool) quipu.Function {
	if known, ok := h.of[f.Revision]; ok {
		f = known
	} else {
		f.Number = h.Next
		h.Next++
		h.of[f.Revision] = f
	}
	if traffic || len(h.Parts) == 0 {
		h.takeOver(f.Revision)
		h.Parts = []quipu.Part{{Revision: f.Revision, Percent: 100}}
	}
	return f
}

// takeOver notes from which revision another one gets its first traffic.
func (h *history) takeOver(revision string) {
	from := h.main()
	if from == "" || from == revision || h.percent(revision) > 0 {
		return
	}
	if h.Before == nil {
		h.Before = map[string]string{}
	}
	h.Before[revision] = from
}

// split gives the traffic to revisions, by whatever they are called.
func (h *history) split(parts []quipu.Part) error {
	if len(parts) > quipu.PartsMax {
		return splitError("%d revisions are named, the most is %d", len(parts), quipu.PartsMax)
	}
	var next []quipu.Part
	total := 0
	for _, p := range parts {
		f, err := h.find(p.Revision)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(next, func(o quipu.Part) bool { return o.Revision == f.Revision }) {
			return splitError("revision %d of function %s is named twice", f.Number, h.name)
		}
		if p.Percent < 1 || p.Percent > 100 {
			return splitError("the part of revision %d is %d, but must be a whole percent from 1 to 100", f.Number, p.Percent)
		}
		total += p.Percent
		next = append(next, quipu.Part{Revision: f.Revision, Percent: p.Percent})
	}
	if total != 100 {
		return splitError("the parts are %d percent in all, but must be 100", total)
	}
	number := func(p quipu.Part) int { return h.of[p.Revision].Number }
	slices.SortFunc(next, func(a, b quipu.Part) int { return cmp.Compare(number(b), number(a)) })
	for _, p := range next {
		if number(p) > h.of[h.main()].Number { // what goes back to an older one takes over from nobody
			h.takeOver(p.Revision)
		}
	}
	h.Parts = next
	return nil
}

func splitError(format string, args ...any) error {
	return &quipu.Error{Code: quipu.CodeSplit, Op: "traffic.split", Text: fmt.Sprintf(format, args...), Hint: quipu.Codes[quipu.CodeSplit].Next}
}

// rollback gives all traffic to a revision; to "" means to the one from which the head took over.
func (h *history) rollback(to string) error {
	if to == "" {
		if to = h.Before[h.head().Revision]; to == "" {
			return &quipu.Error{Code: quipu.CodeNoFormer, Op: "traffic.rollback",
				Text: fmt.Sprintf("revision %d of function %s took over from none that is remembered", h.head().Number, h.name),
				Hint: fmt.Sprintf("quipu revisions %s shows what there is; quipu rollback %[1]s REVISION chooses one", h.name)}
		}
	}
	f, err := h.find(to)
	if err == nil {
		h.Parts = []quipu.Part{{Revision: f.Revision, Percent: 100}}
	}
	return err
}

// revisionForm is how revisions are named by their content: no alias may look like one.
var revisionForm = regexp.MustCompile(`^[0-9a-f]{12}$`)

// alias names a revision, or takes the name away if revision is "".
func (h *history) alias(name, revision string) error {
	if revision == "" {
		if _, ok := h.Aliases[name]; !ok {
			return h.unknown(name)
		}
		delete(h.Aliases, name)
		return nil
	}
	if !nameForm.MatchString(name) || revisionForm.MatchString(name) {
		return &quipu.Error{Code: quipu.CodeUsage, Op: "alias.set", Text: fmt.Sprintf("%.80q cannot be an alias", name),
			Hint: "use lower-case letters, digits and hyphens, a letter first, at most 63, and not what looks like a revision"}
	}
	f, err := h.find(revision)
	if err != nil {
		return err
	}
	if _, ok := h.Aliases[name]; !ok && len(h.Aliases) >= quipu.AliasesMax {
		return &quipu.Error{Code: quipu.CodeTooMany, Op: "alias.set",
			Text: fmt.Sprintf("function %s has %d aliases, which is the most", h.name, quipu.AliasesMax)}
	}
	if h.Aliases == nil {
		h.Aliases = map[string]string{}
	}
	h.Aliases[name] = f.Revision
	return nil
}

// find is a revision by its alias, name or number. CodeNoRevision.
func (h *history) find(which string) (quipu.Function, error) {
	revision := which
	if aliased, ok := h.Aliases[which]; ok {
		revision = aliased
	}
	if f, ok := h.of[revision]; ok {
		return f, nil
	}
	if n, err := strconv.Atoi(which); err == nil {
		for _, f := range h.of {
			if f.Number == n {
				return f, nil
			}
		}
	}
	return quipu.Function{}, h.unknown(which)
}

func (h *history) unknown(which string) error {
	return &quipu.Error{Code: quipu.CodeNoRevision, Op: "revision.find",
		Text: fmt.Sprintf("function %s has no revision %.80q", h.name, which), Hint: fmt.Sprintf("quipu revisions %s shows what there is", h.name)}
}

// isOpen tells whether anybody may choose a revision: what has neither traffic nor an alias may have been replaced for a
// reason.
func (h *history) isOpen(revision string) bool {
	return h.percent(revision) > 0 || slices.Contains(slices.Collect(maps.Values(h.Aliases)), revision)
}

// choose is the revision of a call by the traffic split. The same key gives the same one, and while the part of the
// newest revision grows, what went there goes on doing so.
func (h *history) choose(key string) quipu.Function {
	if len(h.Parts) > 1 {
		sum := sha256.Sum256([]byte(h.name + "\x00" + key))
		n := int(binary.BigEndian.Uint64(sum[:]) % 100)
		for _, p := range h.Parts {
			if n -= p.Percent; n < 0 {
				return h.of[p.Revision]
			}
		}
	}
	return h.head()
}

// numbers are the revisions, the newest first.
func (h *history) numbers() []quipu.Function {
	return slices.SortedFunc(maps.Values(h.of), func(a, b quipu.Function) int { return cmp.Compare(b.Number, a.Number) })
}

// idle lists the revisions that there is no reason to remember: not among the newest, no traffic, no alias, nobody
// took over from them who has traffic, and not bound, by calls under way or executions.
func (h *history) idle(bound []string) (list []string) {
	keep := map[string]bool{}
	for _, f := range h.numbers()[:min(quipu.RevisionsKept, len(h.of))] {
		keep[f.Revision] = true
	}
	for _, p := range h.Parts {
		keep[p.Revision], keep[h.Before[p.Revision]] = true, true
	}
	for _, revision := range slices.Concat(bound, slices.Collect(maps.Values(h.Aliases))) {
		keep[revision] = true
	}
	for revision := range h.of {
		if !keep[revision] {
			list = append(list, revision)
		}
	}
	return list
}

// forget drops the idle revisions.
func (h *history) forget(bound []string) {
	for _, revision := range h.idle(bound) {
		delete(h.of, revision)
	}
	gone := func(revision string) bool { _, stays := h.of[revision]; return !stays }
	maps.DeleteFunc(h.Before, func(after, before string) bool { return gone(after) || gone(before) })
}

// revisions is the history as people see it.
func (h *history) revisions() []quipu.Revision {
	all := make([]quipu.Revision, 0, len(h.of))
	for _, f := range h.numbers() {
		r := quipu.Revision{Function: f, Percent: h.percent(f.Revision), Head: f.Revision == h.head().Revision}
		for _, alias := range slices.Sorted(maps.Keys(h.Aliases)) {
			if h.Aliases[alias] == f.Revision {
				r.Aliases = append(r.Aliases, alias)
			}
		}
		all = append(all, r)
	}
	return all
}

// Deployed is a function with those of its revisions that take calls.
type Deployed struct {
	Head  quipu.Function   // the newest with traffic, whose triggers are the function's
	Live  []quipu.Function // with traffic
	Named []quipu.Function // with an alias, but without traffic
}

func (h *history) deployed() Deployed {
	d := Deployed{Head: h.head()}
	for _, f := range h.numbers() {
		switch {
		case h.percent(f.Revision) > 0:
			d.Live = append(d.Live, f)
		case h.isOpen(f.Revision):
			d.Named = append(d.Named, f)
		}
	}
	return d
}
