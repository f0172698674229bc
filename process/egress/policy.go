package egress

import (
	"net/netip"
	"slices"
)

// Mode is what an instance may reach without a Rule.
type Mode int

// The modes. Nameservers of the machine, at port 53, are allowed in Machine and Public, and in None
// if there is any rule, since a rule is of little use without names.
const (
	Machine Mode = iota // all that the machine reaches, its loopback too, but no metadata services and 169.254/16
	Public              // the internet: neither private, link-local nor special networks, nor this machine
	None                // nothing
)

// Policy says which addresses an instance may connect to. Deny wins over Allow, Allow over Mode.
type Policy struct {
	Mode        Mode
	Allow       []Rule
	NoDatagrams bool // no UDP leaves, not to nameservers either; see "What it does not do"

	// Deny names what nobody may reach, such as the node's own listeners; see Listeners. It is asked for
	// the address as it was given and, if that stands for an IPv4 address (NAT64, 6to4), for that too.
	// It is called by many goroutines and must not block. nil denies nothing.
	Deny func(netip.AddrPort) bool

	// Redirect leads a TCP connect that is allowed to another address: what answers there is meant for instances. It is called as
	// Deny is. nil redirects nothing.
	Redirect func(netip.AddrPort) (at netip.AddrPort, ok bool)

	host host // what is known of this machine; nil asks the machine
}

// host is what a policy needs to know of the machine.
type host interface {
	nameservers() []netip.Addr
	addresses() []netip.Addr
}

// Allows says whether the instance may connect to to, outside its namespace. The unspecified
// address is judged as loopback, as the kernel connects it.
func (p *Policy) Allows(to netip.AddrPort) bool {
	to = normal(to)
	switch {
	case p.denied(to):
		return false
	case slices.ContainsFunc(p.Allow, func(r Rule) bool { return r.Contains(to) }):
		return true
	case p.isNameserver(to):
		return p.Mode != None || len(p.Allow) > 0
	case p.Mode == Machine:
		return !slices.ContainsFunc(faces(to.Addr()), isMetadata)
	case p.Mode == Public:
		return !slices.ContainsFunc(faces(to.Addr()), p.isPrivate)
	}
	return false
}

func (p *Policy) denied(to netip.AddrPort) bool {
	return p.Deny != nil && slices.ContainsFunc(faces(to.Addr()), func(face netip.Addr) bool {
		return p.Deny(netip.AddrPortFrom(face, to.Port()))
	})
}

func (p *Policy) isNameserver(to netip.AddrPort) bool {
	return to.Port() == 53 && slices.Contains(p.machine().nameservers(), to.Addr())
}

func (p *Policy) isPrivate(addr netip.Addr) bool {
	return within(addr, notPublic) || isMetadata(addr) || slices.Contains(p.machine().addresses(), addr)
}

func (p *Policy) machine() host {
	if p.host != nil {
		return p.host
	}
	return &thisMachine
}

// normal is the one spelling of an address that policies compare: no IPv4 inside IPv6, no zone, and
// loopback for "any".
func normal(to netip.AddrPort) netip.AddrPort {
	addr := to.Addr().Unmap().WithZone("")
	switch addr {
	case netip.IPv4Unspecified():
		addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case netip.IPv6Unspecified():
		addr = netip.IPv6Loopback()
	}
	return netip.AddrPortFrom(addr, to.Port())
}

// faces are the address and the IPv4 address that it stands for, if any: a gateway may carry it there.
func faces(addr netip.Addr) []netip.Addr {
	found := []netip.Addr{addr}
	if !addr.Is6() {
		return found
	}
	b := addr.As16()
	switch {
	case nat64.Contains(addr), compatible.Contains(addr) && addr != netip.IPv6Loopback():
		return append(found, netip.AddrFrom4([4]byte(b[12:16])))
	case sixToFour.Contains(addr):
		return append(found, netip.AddrFrom4([4]byte(b[2:6])))
	}
	return found
}

var (
	nat64      = netip.MustParsePrefix("64:ff9b::/96")
	compatible = netip.MustParsePrefix("::/96")
	sixToFour  = netip.MustParsePrefix("2002::/16")
)

// metadata are the services that clouds give credentials of the machine through; all of 169.254/16,
// since each cloud has chosen others of it.
var metadata = prefixes(
	"169.254.0.0/16",
	"100.100.100.200/32",  // Alibaba
	"168.63.129.16/32",    // Azure
	"192.0.0.192/32",      // Oracle
	"fd00:ec2::/64",       // AWS
	"fd20:ce::254/128",    // Google
	"fe80::a9fe:a9fe/128", // 169.254.169.254 as link-local, OpenStack
)

// notPublic are the special networks of RFC 6890 that are not the internet, beside metadata.
var notPublic = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.0.0.0/24",
	"192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4",
	"::/128", "::1/128", "64:ff9b:1::/48", "100::/64", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
)

func isMetadata(addr netip.Addr) bool { return within(addr, metadata) }

func within(addr netip.Addr, nets []netip.Prefix) bool {
	return slices.ContainsFunc(nets, func(net netip.Prefix) bool { return net.Contains(addr) })
}

func prefixes(texts ...string) []netip.Prefix {
	nets := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		nets[i] = netip.MustParsePrefix(text)
	}
	return nets
}
