package topic

import (
	"testing"

	"github.com/quipu-run/quipu"
)

// Whatever bytes an operation has, it is applied or refused, and never panics or takes memory out of proportion.
func FuzzOperations(f *testing.F) {
	m := message{Message: quipu.Message{Topic: "t", ID: "1", Data: []byte("x")}, dead: &quipu.DeadLetter{Topic: "u"}}
	f.Add([]byte(writer{opPublish}.message(m)))
	f.Add([]byte(writer{opDelay}.uint(5).message(m)))
	f.Add([]byte(writer{opSettle}.str("t").str("s").uints([]uint64{1, 2, 300}).uints(nil).uint(1).uints(nil).uint(1).uint(9).uint(1).uint(1).str("c").uint(1)))
	f.Add([]byte(writer{opDelete}.str("t").uint(1).str("s").str("f")))
	f.Fuzz(func(t *testing.T, op []byte) {
		if len(op) == 0 {
			return
		}
		r := &reader{rest: op[1:]}
		switch op[0] {
		case opPublish:
			again := writer{opPublish}.message(r.message())
			if r.end() == nil && len(again) > len(op)+16 {
				t.Errorf("%d bytes became %d", len(op), len(again))
			}
		case opSettle:
			r.str()
			r.str()
			if n := len(r.uints()); n > len(op) {
				t.Errorf("%d bytes hold %d offsets", len(op), n)
			}
		}
		DescribeOp(op)
		DescribeEvents(op)
	})
}
