package linelog

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
)

// Request says which lines of which functions.
type Request struct {
	Functions []string // none: all that ever printed, also those that begin to later
	Tail      int      // the last lines of all together
	Follow    bool     // go on with new ones
	// After, if not nil, has the Place of the last line that its reader has seen of a function: Tail is not looked at. Of other
	// functions, lines since Since are new to it.
	After map[string]string
	Since time.Time
}

// Placed is a line, and where the output of its function goes on behind it.
type Placed struct {
	Line
	Place string
}

// ReadAll is Read of several functions: lines are in order of their times, those of one function as they were written. What comes
// while a reader is busy is in order among itself. CodeUsage for a Place that is none.
func (w *Writer) ReadAll(ctx context.Context, r Request) iter.Seq2[Placed, error] {
	return func(yield func(Placed, error) bool) {
		m := &merge{w: w, r: r, at: map[string]place{}}
		if err := m.run(ctx, func(p Placed) bool { return yield(p, nil) }); err != nil {
			yield(Placed{}, err)
		}
	}
}

// Known tells whether anything is kept of a function.
func (w *Writer) Known(function string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.rolls[function]
	return r != nil && len(r.numbers) > 0
}

// extent is what there is of a function at one moment.
type extent struct {
	numbers []int
	end     place
}

// extents are those of the functions asked for, and what is closed when any changes: nil if nobody will wait or nothing
// will come.
func (w *Writer) extents(r Request) (all map[string]extent, changed chan struct{}, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all = map[string]extent{}
	for name, roll := range w.rolls {
		if len(roll.numbers) == 0 || len(r.Functions) > 0 && !slices.Contains(r.Functions, name) {
			continue
		}
		e := extent{numbers: slices.Clone(roll.numbers)}
		e.end.number = roll.numbers[len(roll.numbers)-1]
		if e.end.offset, err = w.newestSize(roll, e.end.number); err != nil {
			return nil, nil, err
		}
		all[name] = e
	}
	if r.Follow && !w.closed {
		if w.changed == nil {
			w.changed = make(chan struct{})
		}
		changed = w.changed
	}
	return all, changed, nil
}

// merge reads several functions.
type merge struct {
	w  *Writer
	r  Request
	at map[string]place // how far each was read
}

func (m *merge) run(ctx context.Context, yield func(Placed) bool) error {
	all, changed, err := m.w.extents(m.r)
	if err != nil {
		return err
	}
	skip, err := m.begin(ctx, all)
	if err != nil {
		return err
	}
	late := func(p Placed) bool { // what is before the tail is passed over
		skip--
		return skip >= 0 || yield(p)
	}
	for {
		if more, err := m.round(ctx, all, m.at, late); err != nil || !more {
			return err
		}
		if changed == nil {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
		if all, changed, err = m.w.extents(m.r); err != nil {
			return err
		}
	}
}

// begin finds where each function is read from, and how many lines from there are before the tail of all.
func (m *merge) begin(ctx context.Context, all map[string]extent) (skip int, err error) {
	if m.r.After != nil {
		for function, text := range m.r.After {
			at, err := parsePlace(text)
			if err != nil {
				return 0, err
			}
			if e := all[function].end; at.number > e.number || at.number == e.number && at.offset > e.offset {
				at = place{} // the output is another than its reader has seen
			}
			m.at[function] = at
		}
		return 0, nil
	}
	for function, e := range all {
		if m.at[function], err = m.w.start(function, e.numbers, e.end, m.r.Tail); err != nil {
			return 0, err
		}
	}
	if len(all) < 2 || m.r.Tail < 0 {
		return 0, nil
	}
	from, lines := map[string]place{}, 0
	for function := range all {
		from[function] = m.at[function]
	}
	_, err = m.round(ctx, all, from, func(Placed) bool { lines++; return true })
	return max(0, lines-m.r.Tail), err
}

// round yields what all have behind at, which it moves; false if yield wants no more.
func (m *merge) round(ctx context.Context, all map[string]extent, at map[string]place, yield func(Placed) bool) (bool, error) {
	var sources []*source
	defer func() {
		for _, s := range sources {
			s.close()
		}
	}()
	for function, e := range all {
		if at[function] == e.end {
			continue
		}
		s := m.open(ctx, function, at[function], e.end)
		sources = append(sources, s)
		if err := s.advance(); err != nil {
			return false, err
		}
	}
	for {
		var first *source
		for _, s := range sources {
			if !s.over && (first == nil || s.before(first)) {
				first = s
			}
		}
		if first == nil {
			break
		}
		if !m.isOld(first.head) && !yield(Placed{first.head, first.place.String()}) {
			return false, nil
		}
		at[first.c.function] = first.place
		if err := first.advance(); err != nil {
			return false, err
		}
	}
	for _, s := range sources { // bytes that are no line are read, too
		at[s.c.function] = s.c.at
	}
	return true, nil
}

// isOld tells whether a reader that goes on has seen a line of a function that it names no place of.
func (m *merge) isOld(l Line) bool {
	if m.r.After == nil {
		return false
	}
	_, known := m.r.After[l.Function]
	return !known && l.Time.Before(m.r.Since)
}

// source is one function in a round.
type source struct {
	c     *cursor
	next  func() (Line, bool)
	stop  func()
	err   error
	head  Line
	place place // behind head
	over  bool
}

func (m *merge) open(ctx context.Context, function string, from, end place) *source {
	s := &source{c: &cursor{w: m.w, function: function, at: from}}
	s.next, s.stop = iter.Pull(func(yield func(Line) bool) { _, s.err = s.c.advance(ctx, end, yield) })
	return s
}

func (s *source) advance() error {
	var more bool
	s.head, more = s.next()
	s.place, s.over = s.c.at, !more
	return s.err
}

func (s *source) before(o *source) bool {
	return cmp.Or(s.head.Time.Compare(o.head.Time), strings.Compare(s.c.function, o.c.function)) < 0
}

func (s *source) close() {
	s.stop()
	s.c.close()
}

// String is a place as Place has it.
func (p place) String() string { return fmt.Sprintf("%d.%d", p.number, p.offset) }

func parsePlace(text string) (p place, err error) {
	if _, err = fmt.Sscanf(text, "%d.%d", &p.number, &p.offset); err != nil || p.String() != text || p.number < 0 || p.offset < 0 {
		return p, &quipu.Error{Code: quipu.CodeUsage, Op: "logs.read", Text: fmt.Sprintf("%.40q is no place in the output of a function", text)}
	}
	return p, nil
}

// CheckPlace refuses what is no Place. CodeUsage.
func CheckPlace(text string) error {
	_, err := parsePlace(text)
	return err
}
