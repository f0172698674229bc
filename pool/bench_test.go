package pool

import (
	"context"
	"testing"

	"github.com/quipu-run/quipu"
)

// BenchmarkWarm is what the pool adds to a call that finds an instance free.
func BenchmarkWarm(b *testing.B) {
	p := New(Options{Runtime: &fake{}, Prepare: func(_ context.Context, f quipu.Function, id string) (quipu.InstanceSpec, func(), error) {
		return quipu.InstanceSpec{ID: id}, nil, nil
	}})
	f := quipu.Function{Name: "f", Revision: "a", Spec: quipu.Spec{Concurrency: 80, Scale: quipu.Scale{Max: 1, Idle: quipu.Duration(1e12)}}}
	p.Set("f", []quipu.Function{f}, nil)
	defer p.Close(context.Background())
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			l, err := p.Acquire(context.Background(), f)
			if err != nil {
				b.Error(err)
				return
			}
			l.Release()
		}
	})
}
