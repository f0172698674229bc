package pool

import (
	"slices"
	"sync"
	"sync/atomic"
)

// gate bounds what all functions of a namespace have together: calls that run, or instances. Here both are places.
//
// A place that a function has reserved is free for that function only. Who finds none stands in line, and each place that
// becomes free is offered to the next function in line, one at a time, whatever each has waiting: turns are fair between
// functions, not between calls. An offered place counts as taken until it is used or given back, so nobody can overtake.
// A gate knows no keeper's lock, and its own is the last to be taken.
type gate struct {
	most int

	mu       sync.Mutex // guards the fields below
	taken    int
	kept     int // reserved, and not taken
	of       map[string]*claim
	line     []*claim // next first, each once
	yielding int      // places whose owners will give them up for those in line
	stands   map[*stand]bool
	rallying bool // who has places is called when somebody comes into line: it may yield one

	waiting atomic.Int64 // length of line
}

// claim is what one function has.
type claim struct {
	function string
	reserved int
	taken    int
	users    int      // standers that know it
	standing []*stand // next first, each once
}

// stand is one of those who take places for a function: the keeper of a revision.
type stand struct {
	gate    *gate
	claim   *claim
	inLine  bool         // guarded by gate.mu
	offered atomic.Int64 // places that are taken for it, and which it does not know of yet
	call    func()       // there is an offer; it must not take locks
}

func newGate(most int) *gate {
	return &gate{most: most, of: map[string]*claim{}, stands: map[*stand]bool{}}
}

// claim is that of a function. The caller holds mu.
func (g *gate) claim(function string) *claim {
	c := g.of[function]
	if c == nil {
		c = &claim{function: function}
		g.of[function] = c
	}
	return c
}

// forget drops a claim that says nothing. The caller holds mu.
func (g *gate) forget(c *claim) {
	if c.users == 0 && c.reserved == 0 && c.taken == 0 {
		delete(g.of, c.function)
	}
}

// reserve says how many places are for a function alone.
func (g *gate) reserve(function string, places int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.claim(function)
	g.kept -= c.keeps()
	c.reserved = places
	g.kept += c.keeps()
	g.forget(c)
	g.offer()
}

// add changes how many places c has. The caller holds mu.
func (g *gate) add(c *claim, places int) {
	g.kept -= c.keeps()
	c.taken += places
	g.kept += c.keeps()
	g.taken += places
}

// keeps is how many places others have to leave free for c.
func (c *claim) keeps() int { return max(0, c.reserved-c.taken) }

// isFree tells whether there is a place for c. The caller holds mu.
func (g *gate) isFree(c *claim) bool { return c.taken < c.reserved || g.taken+g.kept < g.most }

// stand makes one who can take places for a function; leave ends it.
func (g *gate) stand(function string, call func()) *stand {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.claim(function)
	c.users++
	s := &stand{gate: g, claim: c, call: call}
	g.stands[s] = true
	return s
}

// take takes a place, or stands in line for one. With force it is taken even if there is none: by who would hold up others.
func (s *stand) take(force bool) bool {
	g := s.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if force || g.isFree(s.claim) {
		g.add(s.claim, 1)
		return true
	}
	if !s.inLine {
		g.queue(s)
	}
	return false
}

// queue puts s in line. The caller holds mu.
func (g *gate) queue(s *stand) {
	s.inLine = true
	if s.claim.standing = append(s.claim.standing, s); len(s.claim.standing) == 1 {
		g.line = append(g.line, s.claim)
	}
	g.waiting.Store(int64(len(g.line)))
	if !g.rallying {
		return
	}
	for other := range g.stands {
		if other != s && other.claim.taken > 0 {
			other.call()
		}
	}
}

// give gives places back. yielded are those among them that yield promised.
func (s *stand) give(places, yielded int) {
	if places == 0 {
		return
	}
	g := s.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	g.yielding -= yielded
	g.add(s.claim, -places)
	if s.claim.taken < 0 || g.yielding < 0 {
		panic("more places were given back than taken: " + s.claim.function)
	}
	if len(g.line) > 0 {
		g.offer()
	}
	g.forget(s.claim)
}

// offer gives what is free to those in line. The caller holds mu.
func (g *gate) offer() {
	for n := 0; n < len(g.line); {
		c := g.line[n]
		if !g.isFree(c) {
			n++ // one behind may have places reserved
			continue
		}
		g.line = slices.Delete(g.line, n, n+1)
		s := c.standing[0]
		if c.standing = c.standing[1:]; len(c.standing) > 0 {
			g.line = append(g.line, c)
		}
		s.inLine = false
		g.add(c, 1)
		s.offered.Add(1)
		s.call()
	}
	g.waiting.Store(int64(len(g.line)))
}

// withdraw takes s out of the line: it does not want a place any more.
func (s *stand) withdraw() {
	g := s.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if !s.inLine {
		return
	}
	s.inLine = false
	c := s.claim
	if c.standing = slices.DeleteFunc(c.standing, func(o *stand) bool { return o == s }); len(c.standing) == 0 {
		g.line = slices.DeleteFunc(g.line, func(o *claim) bool { return o == c })
	}
	g.waiting.Store(int64(len(g.line)))
}

// accept is how many places were offered since it was asked last.
func (s *stand) accept() int {
	if s.offered.Load() == 0 {
		return 0 // cheaper, and on the way of every call
	}
	return int(s.offered.Swap(0))
}

// leave ends s, and gives back what it was offered meanwhile.
func (s *stand) leave() {
	g := s.gate
	s.withdraw()
	s.give(s.accept(), 0)
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.stands, s)
	s.claim.users--
	g.forget(s.claim)
}

// isPressed tells whether somebody waits, without a lock: it is asked on the way of every call.
func (s *stand) isPressed() bool { return s.gate.waiting.Load() > 0 }

// yield promises to give up a place that is not used, if somebody waits for it.
func (s *stand) yield() bool {
	g := s.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	others := len(g.line)
	if s.inLine && len(s.claim.standing) == 1 {
		others--
	}
	if others <= g.yielding || s.claim.taken <= s.claim.reserved {
		return false
	}
	g.yielding++
	return true
}
