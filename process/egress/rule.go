package egress

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/quipu-run/quipu"
)

// Rule allows addresses and ports. The zero Rule allows nothing.
type Rule struct {
	net       netip.Prefix // invalid means any address
	low, high uint16
}

// ParseRule reads one of
//
//	10.0.0.0/8   10.1.2.3:5432   192.168.0.0/16:8000-9000   [2001:db8::]/32:443   2001:db8::1   *:443
//
// Without ports all ports are meant. The error is a quipu.Error with CodeManifest.
func ParseRule(text string) (Rule, error) {
	host, ports, err := splitRule(text)
	if err != nil {
		return Rule{}, badRule(text, err)
	}
	r := Rule{low: 0, high: 65535}
	if host != "*" {
		if r.net, err = parseNet(host); err != nil {
			return Rule{}, badRule(text, err)
		}
	}
	if ports != "" {
		if r.low, r.high, err = parsePorts(ports); err != nil {
			return Rule{}, badRule(text, err)
		}
	}
	return r, nil
}

// Contains says whether the rule allows to.
func (r Rule) Contains(to netip.AddrPort) bool {
	if r.high == 0 || to.Port() < r.low || to.Port() > r.high {
		return false
	}
	return !r.net.IsValid() || r.net.Contains(to.Addr().Unmap().WithZone(""))
}

// String is a text that ParseRule reads as the same rule.
func (r Rule) String() string {
	host := "*"
	if r.net.IsValid() {
		host = r.net.Addr().String()
		if r.net.Addr().Is6() {
			host = "[" + host + "]"
		}
		if !r.net.IsSingleIP() {
			host += "/" + strconv.Itoa(r.net.Bits())
		}
	}
	switch {
	case r.low == 0 && r.high == 65535:
		return host
	case r.low == r.high:
		return fmt.Sprintf("%s:%d", host, r.low)
	}
	return fmt.Sprintf("%s:%d-%d", host, r.low, r.high)
}

// splitRule parts the addresses from the ports; brackets are for IPv6 with ports.
func splitRule(text string) (host, ports string, err error) {
	rest := text
	if inner, ok := strings.CutPrefix(text, "["); ok {
		addr, after, closed := strings.Cut(inner, "]")
		if !closed || !strings.Contains(addr, ":") {
			return "", "", fmt.Errorf("brackets go around an IPv6 address")
		}
		host, rest = addr, after
	} else if strings.Count(text, ":") > 1 {
		return text, "", nil
	}
	bits, ports, colon := strings.Cut(rest, ":")
	if colon && ports == "" {
		return "", "", fmt.Errorf("no port after the colon")
	}
	return host + bits, ports, nil
}

func parseNet(host string) (netip.Prefix, error) {
	if !strings.Contains(host, "/") {
		addr, err := netip.ParseAddr(host)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q is no IP address", host)
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	net, err := netip.ParsePrefix(host)
	if err != nil || net.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is no network", host)
	}
	if net != net.Masked() {
		return netip.Prefix{}, fmt.Errorf("%s has bits beyond its length, %s has not", host, net.Masked())
	}
	return net, nil
}

func parsePorts(text string) (low, high uint16, err error) {
	first, last, isRange := strings.Cut(text, "-")
	if !isRange {
		last = first
	}
	from, err1 := strconv.ParseUint(first, 10, 16)
	to, err2 := strconv.ParseUint(last, 10, 16)
	if err1 != nil || err2 != nil || from == 0 || from > to {
		return 0, 0, fmt.Errorf("%q is no port or range of ports from 1 to 65535", text)
	}
	return uint16(from), uint16(to), nil
}

func badRule(text string, err error) error {
	return &quipu.Error{
		Code: quipu.CodeManifest, Op: "egress.rule",
		Text: fmt.Sprintf("the rule %q cannot be used: %v", text, err),
		Hint: "write addresses and, after a colon, ports: 10.0.0.0/8, 10.1.2.3:5432, [2001:db8::]/32:443, *:443",
	}
}
