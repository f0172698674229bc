package egress

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quipu-run/quipu"
)

// fakeHost is a machine with a LAN address, a public one, and two nameservers.
type fakeHost struct{ names, addrs []netip.Addr }

func (h fakeHost) nameservers() []netip.Addr { return h.names }
func (h fakeHost) addresses() []netip.Addr   { return h.addrs }

var aHost = fakeHost{
	names: addrs("127.0.0.53", "169.254.20.10"),
	addrs: addrs("127.0.0.1", "192.168.7.2", "198.51.100.9", "2001:db8:1::9"),
}

func addrs(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

func rules(t *testing.T, texts ...string) (all []Rule) {
	t.Helper()
	for _, text := range texts {
		r, err := ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

func TestEachModeAllowsWhatItSays(t *testing.T) {
	const m, p, n = "machine", "public", "none" // modes that allow the address; None has a rule for elsewhere
	for to, modes := range map[string]string{
		"93.184.215.14:443":          m + p,
		"[2606:4700::1111]:443":      m + p,
		"127.0.0.1:5432":             m,
		"[::1]:5432":                 m,
		"[::ffff:127.0.0.1]:5432":    m,
		"0.0.0.0:5432":               m,
		"[::]:5432":                  m,
		"10.1.2.3:80":                m,
		"172.16.0.1:80":              m,
		"172.32.0.1:80":              m + p,
		"192.168.7.2:80":             m,
		"[::ffff:192.168.7.2]:80":    m,
		"100.64.0.1:80":              m,
		"100.128.0.1:80":             m + p,
		"[fd12::1]:80":               m,
		"[fe80::1]:80":               m,
		"224.0.0.251:5353":           m,
		"[ff02::fb]:5353":            m,
		"240.0.0.1:80":               m,
		"198.51.100.9:80":            m, // this machine's own public address
		"[2001:db8:1::9]:80":         m,
		"[64:ff9b::a01:203]:80":      m, // 10.1.2.3 behind NAT64
		"[64:ff9b::5db8:d70e]:80":    m + p,
		"[2002:a01:203::1]:80":       m, // 10.1.2.3 behind 6to4
		"169.254.169.254:80":         "",
		"169.254.170.2:80":           "",
		"[::ffff:169.254.169.254]:1": "",
		"[64:ff9b::a9fe:a9fe]:80":    "",
		"100.100.100.200:80":         "",
		"168.63.129.16:80":           "",
		"[fd00:ec2::254]:80":         "",
		"[fd20:ce::254]:80":          "",
		"127.0.0.53:53":              m + p + n, // nameservers
		"169.254.20.10:53":           m + p + n,
		"169.254.20.10:80":           "",
		"203.0.113.5:8443":           m + p + n, // the rule
		"203.0.113.5:8444":           m + p,
	} {
		for mode, name := range map[Mode]string{Machine: m, Public: p, None: n} {
			policy := Policy{Mode: mode, Allow: rules(t, "203.0.113.5:8443"), host: aHost}
			if got, want := policy.Allows(netip.MustParseAddrPort(to)), strings.Contains(modes, name); got != want {
				t.Errorf("%s: %s allowed = %v, want %v", name, to, got, want)
			}
		}
	}
}

func TestNoneWithoutARuleHasNoNames(t *testing.T) {
	policy := Policy{Mode: None, host: aHost}
	if policy.Allows(netip.MustParseAddrPort("127.0.0.53:53")) {
		t.Error("a nameserver may be asked although there is nothing to ask for")
	}
}

func TestARuleWinsOverTheModeAndDenyOverTheRule(t *testing.T) {
	admin := netip.MustParseAddrPort("127.0.0.1:8080")
	policy := Policy{
		Mode: Machine, Allow: rules(t, "169.254.169.254:80", "*:8080"), host: aHost,
		Deny: listenersOf(func() []netip.AddrPort { return []netip.AddrPort{admin} }, aHost),
	}
	for to, want := range map[string]bool{
		"169.254.169.254:80":        true,
		"127.0.0.1:8080":            false,
		"127.9.9.9:8080":            false,
		"0.0.0.0:8080":              false,
		"[::]:8080":                 false,
		"[::1]:8080":                false,
		"[::ffff:127.0.0.1]:8080":   false,
		"192.168.7.2:8080":          false,
		"[::ffff:192.168.7.2]:8080": false,
		"[64:ff9b::c0a8:702]:8080":  false, // 192.168.7.2 behind NAT64
		"198.51.100.9:8080":         false,
		"[2001:db8:1::9]:8080":      false,
		"198.51.100.10:8080":        true, // another machine
		"127.0.0.1:8081":            true,
	} {
		if got := policy.Allows(netip.MustParseAddrPort(to)); got != want {
			t.Errorf("%s allowed = %v, want %v", to, got, want)
		}
	}
}

func TestRulesAreReadAndWrittenTheSame(t *testing.T) {
	for text, c := range map[string]struct{ in, out string }{
		"10.0.0.0/8":                 {"10.255.0.1:1", "11.0.0.1:1"},
		"10.1.2.3:5432":              {"10.1.2.3:5432", "10.1.2.3:5433"},
		"10.1.2.3":                   {"[::ffff:10.1.2.3]:9", "10.1.2.4:9"},
		"[2001:db8::]/32:443":        {"[2001:db8:f::1]:443", "[2001:db9::]:443"},
		"[2001:db8::1]:443":          {"[2001:db8::1]:443", "[2001:db8::1]:444"},
		"[2001:db8::]/32":            {"[2001:db8::5]:1", "[2001:db9::]:1"},
		"192.168.0.0/16:8000-9000":   {"192.168.1.1:9000", "192.168.1.1:9001"},
		"*:443":                      {"[2001:db8::1]:443", "1.1.1.1:80"},
		"0.0.0.0/0:443":              {"1.1.1.1:443", "[2001:db8::1]:443"},
		"[::]/0:1-65535":             {"[2001:db8::1]:443", "1.1.1.1:443"},
		"192.168.0.0/16:65535":       {"192.168.1.1:65535", "192.168.1.1:1"},
		"[::1]":                      {"[::1]:1", "127.0.0.1:1"},
		"127.0.0.1:1-2":              {"127.0.0.1:2", "127.0.0.1:3"},
		"203.0.113.128/25:8080-8081": {"203.0.113.129:8081", "203.0.113.1:8081"},
	} {
		r := rules(t, text)[0]
		if r.String() != text {
			t.Errorf("%q is written as %q", text, r)
		}
		if !r.Contains(netip.MustParseAddrPort(c.in)) || r.Contains(netip.MustParseAddrPort(c.out)) {
			t.Errorf("%q contains %s: %v, %s: %v", text, c.in, r.Contains(netip.MustParseAddrPort(c.in)),
				c.out, r.Contains(netip.MustParseAddrPort(c.out)))
		}
	}
	if r := rules(t, "2001:db8::1")[0]; r.String() != "[2001:db8::1]" {
		t.Errorf("IPv6 without brackets became %q", r)
	}
	if (Rule{}).Contains(netip.MustParseAddrPort("1.1.1.1:0")) {
		t.Error("the zero rule allows something")
	}
}

func TestABadRuleSaysWhatIsWrong(t *testing.T) {
	for _, text := range []string{
		"", ":", "*:", "*:0", "*:65536", "*:9-8", "*:x", "*:-1", "*:1-", "10.0.0.0/33", "10.1.2.3/8", "example.com:443",
		"[10.0.0.1]:443", "[2001:db8::1", "2001:db8::1/128:443x", "[2001:db8::]/32:", "::ffff:10.0.0.0/104", "fe80::1%eth0",
		"10.0.0.1:1:2", "*.example.com", "10.0.0.0/8 :1",
	} {
		_, err := ParseRule(text)
		var e *quipu.Error
		if !errors.As(err, &e) || e.Code != quipu.CodeManifest || !strings.Contains(e.Text, text) || e.Hint == "" {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestWhatIsDoneWithACall(t *testing.T) {
	to := func(text string) destination {
		ap := netip.MustParseAddrPort(text)
		if ap.Addr().Is4() {
			return destination{family: unix.AF_INET, to: ap}
		}
		return destination{family: unix.AF_INET6, to: ap}
	}
	unspecified := destination{family: unix.AF_UNSPEC}
	public, machine := Policy{Mode: Public, host: aHost}, Policy{host: aHost}
	closed := Policy{host: aHost, NoDatagrams: true}
	for name, c := range map[string]struct {
		policy Policy
		a      attempt
		want   action
	}{
		"a ping socket":                        {machine, attempt{to("1.1.1.1:0"), other, unix.AF_INET, false}, stay},
		"IPv4 on an IPv6 socket":               {machine, attempt{to("1.1.1.1:80"), stream, unix.AF_INET6, false}, stay},
		"an address cut short":                 {machine, attempt{destination{family: unix.AF_INET}, stream, unix.AF_INET, false}, stay},
		"undoing a TCP connect outside":        {machine, attempt{unspecified, stream, unix.AF_INET, true}, stay},
		"undoing a UDP connect outside":        {machine, attempt{unspecified, datagram, unix.AF_INET, true}, keep},
		"undoing a UDP connect inside":         {machine, attempt{unspecified, datagram, unix.AF_INET, false}, stay},
		"TCP to the internet":                  {public, attempt{to("1.1.1.1:80"), stream, unix.AF_INET, false}, leave},
		"TCP to a private network":             {public, attempt{to("10.0.0.1:80"), stream, unix.AF_INET, false}, refuse},
		"TCP to loopback":                      {machine, attempt{to("127.0.0.1:80"), stream, unix.AF_INET, false}, trial},
		"TCP to any":                           {machine, attempt{to("0.0.0.0:80"), stream, unix.AF_INET, false}, trial},
		"TCP to loopback, mapped":              {machine, attempt{to("[::ffff:127.0.0.1]:80"), stream, unix.AF_INET6, false}, trial},
		"TCP to loopback, not let out":         {public, attempt{to("127.0.0.1:80"), stream, unix.AF_INET, false}, inside},
		"TCP to loopback from outside":         {public, attempt{to("127.0.0.1:80"), stream, unix.AF_INET, true}, refuse},
		"TCP to loopback from outside, let":    {machine, attempt{to("127.0.0.1:80"), stream, unix.AF_INET, true}, leave},
		"UDP to loopback":                      {machine, attempt{to("127.0.0.1:80"), datagram, unix.AF_INET, false}, stay},
		"UDP to a nameserver on loopback":      {public, attempt{to("127.0.0.53:53"), datagram, unix.AF_INET, false}, leave},
		"UDP to no nameserver on loopback":     {public, attempt{to("127.0.0.54:53"), datagram, unix.AF_INET, false}, stay},
		"TCP to a nameserver on loopback":      {public, attempt{to("127.0.0.53:53"), stream, unix.AF_INET, false}, trial},
		"UDP to the internet":                  {public, attempt{to("1.1.1.1:80"), datagram, unix.AF_INET, false}, leave},
		"UDP to the internet, no datagrams":    {closed, attempt{to("1.1.1.1:80"), datagram, unix.AF_INET, false}, refuse},
		"UDP to a nameserver, no datagrams":    {closed, attempt{to("127.0.0.53:53"), datagram, unix.AF_INET, false}, stay},
		"TCP to the internet, no datagrams":    {closed, attempt{to("1.1.1.1:80"), stream, unix.AF_INET, false}, leave},
		"a metadata service":                   {machine, attempt{to("169.254.169.254:80"), stream, unix.AF_INET, false}, refuse},
		"a metadata service over a second try": {machine, attempt{to("169.254.169.254:80"), stream, unix.AF_INET, true}, refuse},
	} {
		if got := c.policy.decide(c.a); got != c.want {
			t.Errorf("%s: action %d, want %d", name, got, c.want)
		}
	}
}

func TestNameserversAreReadAsTheResolverReadsThem(t *testing.T) {
	text := "# comment\nnameserver 10.0.0.2 # why\n; x\nsearch a.b\nnameserver\nnameserver x\n\tnameserver fe80::1%eth0\noptions edns0\n"
	got := parseNameservers(strings.NewReader(text))
	want := addrs("10.0.0.2", "fe80::1")
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %v, want %v", got, want)
	}
	many := strings.Repeat("nameserver 10.0.0.2\n", 1000)
	if got := parseNameservers(strings.NewReader(many)); len(got) != nameserversMax {
		t.Errorf("%d nameservers of a file with 1000", len(got))
	}
}

func TestARefusalIsToldOnceInAWhile(t *testing.T) {
	told := map[netip.AddrPort]int{}
	n := newNotices(func(to netip.AddrPort) { told[to]++ })
	at := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), uint16(i))
	}
	start := time.Unix(1e9, 0)
	for range 100 {
		n.refused(at(1), start)
	}
	for i := range 1000 {
		n.refused(at(i), start.Add(time.Second))
	}
	if told[at(1)] != 1 || len(told) != noticesMax {
		t.Errorf("told %d times of one address, of %d addresses; want 1 and %d", told[at(1)], len(told), noticesMax)
	}
	n.refused(at(1), start.Add(noticePause))
	n.refused(at(999), start.Add(time.Second+noticePause))
	if told[at(1)] != 2 || told[at(999)] != 1 {
		t.Errorf("after the pause: told %d and %d times, want 2 and 1", told[at(1)], told[at(999)])
	}
	if n.count.Load() != 1102 {
		t.Errorf("counted %d refusals of 1102", n.count.Load())
	}
}

func FuzzARuleThatIsReadIsWrittenTheSame(f *testing.F) {
	for _, seed := range []string{"10.0.0.0/8", "*:443", "[2001:db8::]/32:1-9", "::1", "[::ffff:1.2.3.4]:5"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseRule(text)
		if err != nil {
			return
		}
		if again, err := ParseRule(r.String()); err != nil || again != r {
			t.Errorf("%q is written as %q, which is %v, %v", text, r, again, err)
		}
	})
}
