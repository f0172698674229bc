package egress

import (
	"net/netip"
	"sync/atomic"
	"time"
)

const (
	noticePause = 10 * time.Second // between two notices of the same address
	noticesMax  = 32               // addresses in that time
)

// notices tells of refused addresses, but not again and again. Only the goroutine of a supervisor uses it.
type notices struct {
	count atomic.Uint64
	tell  func(netip.AddrPort)
	told  map[netip.AddrPort]time.Time
}

func newNotices(tell func(netip.AddrPort)) *notices {
	return &notices{tell: tell, told: map[netip.AddrPort]time.Time{}}
}

func (n *notices) refused(to netip.AddrPort, now time.Time) {
	n.count.Add(1)
	if n.tell != nil && n.due(to, now) {
		n.tell(to)
	}
}

func (n *notices) due(to netip.AddrPort, now time.Time) bool {
	if last, ok := n.told[to]; ok && now.Sub(last) < noticePause {
		return false
	}
	if len(n.told) >= noticesMax {
		for addr, last := range n.told {
			if now.Sub(last) >= noticePause {
				delete(n.told, addr)
			}
		}
	}
	if _, known := n.told[to]; !known && len(n.told) >= noticesMax {
		return false
	}
	n.told[to] = now
	return true
}
