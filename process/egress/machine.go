package egress

import (
	"bufio"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// machineAgeMax is how old what we know of the machine may be: long enough that a burst of connects
	// asks once, short enough that nobody waits for a new address or nameserver to count.
	machineAgeMax     = time.Second
	resolvConfBytes   = 64 << 10
	nameserversMax    = 16
	resolvConfDefault = "/etc/resolv.conf"
)

// Listeners is a Deny for what the node itself listens on: a port of list is denied at every address of
// this machine, because a listener on one of them is often reachable by the others. list is asked on each
// connect, so that it may change.
func Listeners(list func() []netip.AddrPort) func(netip.AddrPort) bool {
	return listenersOf(list, &thisMachine)
}

func listenersOf(list func() []netip.AddrPort, of host) func(netip.AddrPort) bool {
	return func(to netip.AddrPort) bool {
		to = normal(to)
		for _, listener := range list() {
			if listener.Port() != to.Port() {
				continue
			}
			if to.Addr().IsLoopback() || to.Addr() == listener.Addr().Unmap() || slices.Contains(of.addresses(), to.Addr()) {
				return true
			}
		}
		return false
	}
}

// machine is this one, as last seen. What cannot be read counts as nothing there for nameservers;
// for addresses it keeps the last that were seen.
type machine struct {
	mu      sync.Mutex // guards all below
	seen    time.Time
	names   []netip.Addr
	addrs   []netip.Addr
	resolve string // path; "" means resolvConfDefault
}

var thisMachine machine

func (m *machine) nameservers() []netip.Addr {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.look()
	return m.names
}

func (m *machine) addresses() []netip.Addr {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.look()
	return m.addrs
}

func (m *machine) look() {
	if now := time.Now(); m.seen.IsZero() || now.Sub(m.seen) > machineAgeMax {
		m.seen = now
		m.names = m.readNameservers()
		if addrs, err := net.InterfaceAddrs(); err == nil {
			m.addrs = ownAddresses(addrs)
		}
	}
}

func (m *machine) readNameservers() []netip.Addr {
	path := m.resolve
	if path == "" {
		path = resolvConfDefault
	}
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close() //nolint:errcheck // only read
	return parseNameservers(io.LimitReader(f, resolvConfBytes))
}

func parseNameservers(r io.Reader) []netip.Addr {
	var found []netip.Addr
	for lines := bufio.NewScanner(r); lines.Scan() && len(found) < nameserversMax; {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if addr, err := netip.ParseAddr(fields[1]); err == nil {
			found = append(found, addr.Unmap().WithZone(""))
		}
	}
	return found
}

func ownAddresses(addrs []net.Addr) []netip.Addr {
	var own []netip.Addr
	for _, a := range addrs {
		if ipNet, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(ipNet.IP); ok {
				own = append(own, addr.Unmap())
			}
		}
	}
	return own
}
