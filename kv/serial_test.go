package kv_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sort"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/view"
)

// deed is what one committed transaction saw and did.
type deed struct {
	seq    quipu.Seq
	reads  map[string]string
	listed map[string]string // nil if it listed nothing
	writes map[string]string // "" deletes
}

// Any interleaving of transactions equals a serial order: that of their records. So a replay in the
// order of seqs must read what each of them read.
func TestInterleavedTransactionsAreSerial(t *testing.T) {
	for seed := range uint64(8) {
		w := newWorld(t)
		var mu sync.Mutex
		var deeds []deed
		var wg sync.WaitGroup
		for worker := range uint64(8) {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(seed, worker))
				for range 60 {
					d, err := w.randomTransaction(rng)
					if err != nil {
						t.Errorf("seed %d: %v", seed, err)
						return
					}
					mu.Lock()
					deeds = append(deeds, d)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		sort.Slice(deeds, func(i, j int) bool { return deeds[i].seq < deeds[j].seq })
		if err := replay(deeds); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// randomTransaction reads, lists and writes some of eight keys until it commits.
func (w *world) randomTransaction(rng *rand.Rand) (deed, error) {
	var d deed
	plan := rng.Uint64()
	seq, err := w.book.Change(w.ctx, func(tx *view.Tx) error {
		rng := rand.New(rand.NewPCG(plan, 0))
		d = deed{reads: map[string]string{}, writes: map[string]string{}}
		if rng.IntN(4) == 0 {
			page, err := w.kv.List(tx, "", quipu.StoreShared, quipu.ListRequest{})
			if err != nil {
				return err
			}
			d.listed = map[string]string{}
			for _, item := range page.Items {
				d.listed[item.Key] = string(item.Value)
			}
		}
		for range rng.IntN(3) {
			key := fmt.Sprint(rng.IntN(8))
			items, err := w.kv.Get(tx, "", quipu.StoreShared, []string{key})
			if err != nil {
				return err
			}
			d.reads[key] = string(items[0].Value)
		}
		for range 1 + rng.IntN(2) {
			c := quipu.Change{Key: fmt.Sprint(rng.IntN(8)), Value: fmt.Append(nil, rng.Uint32())}
			if rng.IntN(4) == 0 {
				c.Value, c.Delete = nil, true
			}
			if err := w.kv.Change(tx, "", quipu.StoreShared, []quipu.Change{c}); err != nil {
				return err
			}
			d.writes[c.Key] = string(c.Value)
		}
		return nil
	})
	d.seq = seq
	return d, err
}

func replay(deeds []deed) error {
	state := map[string]string{}
	for _, d := range deeds {
		for key, value := range d.reads {
			if state[key] != value {
				return fmt.Errorf("at %s key %s is %q, but was read as %q", d.seq, key, state[key], value)
			}
		}
		if d.listed != nil {
			want, _ := json.Marshal(state)
			if got, _ := json.Marshal(d.listed); string(got) != string(want) {
				return fmt.Errorf("at %s the keys are %s, but were listed as %s", d.seq, want, got)
			}
		}
		for key, value := range d.writes {
			if value == "" {
				delete(state, key)
			} else {
				state[key] = value
			}
		}
	}
	return nil
}

// Plain reads and conditional writes of one key are linearizable.
func TestPlainOperationsAreLinearizable(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	var history []porcupine.Operation
	start := time.Now()
	var wg sync.WaitGroup
	for client := range 6 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(7, uint64(client)))
			for i := range 40 {
				in := register{write: rng.IntN(2) == 0, value: fmt.Sprintf("%d.%d", client, i)}
				called := time.Since(start)
				out, err := w.operate(in)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				history = append(history, porcupine.Operation{ClientId: client, Input: in, Output: out,
					Call: int64(called), Return: int64(time.Since(start))})
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if result := porcupine.CheckOperationsTimeout(registerModel, history, 30*time.Second); result != porcupine.Ok {
		t.Errorf("history of %d operations: %v", len(history), result)
	}
}

// register is an operation: a read, or a compare-and-set against what was read just before.
type register struct {
	write bool
	value string
}

// result is a value read, or what a compare-and-set expected and whether it won.
type result struct {
	value string
	won   bool
}

func (w *world) operate(in register) (result, error) {
	items, err := w.Get(w.ctx, quipu.StoreShared, "r")
	if err != nil || !in.write {
		return result{value: string(items[0].Value)}, err
	}
	err = w.Apply(context.Background(), quipu.StoreShared, []quipu.Change{
		{Key: "r", Value: []byte(in.value), ETag: items[0].ETag, FirstWrite: true}})
	if quipu.CodeOf(err) == quipu.CodeETag {
		return result{value: string(items[0].Value)}, nil
	}
	return result{value: string(items[0].Value), won: true}, err
}

var registerModel = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		in, out := input.(register), output.(result)
		switch {
		case !in.write:
			return out.value == state, state
		case out.won:
			return out.value == state, in.value
		default: // it lost: the value was no longer, or not yet, what it expected
			return true, state
		}
	},
}
