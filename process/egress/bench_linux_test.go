package egress

import (
	"slices"
	"strconv"
	"strings"
	"testing"
)

// BenchmarkConnect is connect(2) to the machine's loopback by an instance, until the connection is up. Of each
// pair "Direct" is the peer: the same program in the node's namespace, without a filter.
func BenchmarkConnect(b *testing.B) {
	for _, how := range []string{"blocking", "poll"} {
		b.Run(how, func(b *testing.B) { connects(b, how, true) })
		b.Run(how+"Direct", func(b *testing.B) { connects(b, how, false) })
	}
}

func connects(b *testing.B, how string, supervised bool) {
	to := greeter(b, "tcp4", "127.0.0.1:0", "outside")
	argv := []string{"self", "time", to.String(), strconv.Itoa(b.N), how}
	var text string
	if supervised {
		text = run(b, Policy{}, argv...)
	} else {
		text = unsupervised(b, argv...)
	}
	var took []int
	for _, field := range strings.Fields(text) {
		ns, err := strconv.Atoi(field)
		if err != nil {
			b.Fatal(err)
		}
		took = append(took, ns)
	}
	slices.Sort(took)
	b.ReportMetric(0, "ns/op") // start of the program included: of no use
	b.ReportMetric(float64(took[len(took)/2])/1e3, "µs-p50")
	b.ReportMetric(float64(took[len(took)*99/100])/1e3, "µs-p99")
}
