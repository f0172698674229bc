package view_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/view"
)

// eager is a transaction that holds its place in line since it has read key.
func (w *world) eager(t *testing.T, key string) (*view.Tx, string) {
	t.Helper()
	tx := w.book.Begin(t.Context(), nil)
	tx.Eager()
	items, err := w.kv.Get(tx, "", quipu.StoreShared, []string{key})
	if err != nil {
		t.Fatal(err)
	}
	return tx, string(items[0].Value)
}

func (w *world) put(t *testing.T, tx *view.Tx, key, value string) {
	t.Helper()
	if err := w.kv.Change(tx, "", quipu.StoreShared, []quipu.Change{{Key: key, Value: []byte(value)}}); err != nil {
		t.Fatal(err)
	}
}

// line has a turn held on everything, so that who reads has to wait in line, and answers how to give it back.
func (w *world) line(t *testing.T) (end func()) {
	t.Helper()
	probe := w.book.Begin(t.Context(), nil)
	if _, err := w.kv.Get(probe, "", quipu.StoreShared, []string{"n"}); err != nil {
		t.Fatal(err)
	}
	turn, err := w.book.Turn(t.Context(), probe.Claim())
	if err != nil {
		t.Fatal(err)
	}
	if err := probe.Close(); err != nil {
		t.Fatal(err)
	}
	return turn.Done
}

// Many add one to one key at a time, each beginning while the one before is on its way to the disk: all count.
func TestWhoBeginsEarlyLosesNothing(t *testing.T) {
	w := newWorld(t)
	w.set("n", "0")
	const callers, each = 16, 25
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for range each {
				if err := w.addEagerly(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if got := w.get("n"); got != fmt.Sprint(callers*each) {
		t.Errorf("%s of %d", got, callers*each)
	}
}

// addEagerly is what package call does with an atomic function.
func (w *world) addEagerly(ctx context.Context) error {
	var claim view.Claim
	for lost := 0; ; lost++ {
		err := func() error {
			var turn *view.Turn
			if lost >= 2 {
				var err error
				if turn, err = w.book.Turn(ctx, claim); err != nil {
					return err
				}
				defer turn.Done()
			}
			tx := w.book.Begin(ctx, turn)
			defer tx.Close()
			if lost == 0 {
				tx.Eager()
			}
			defer func() { claim = claim.Union(tx.Claim()) }()
			if err := increment(w.kv, tx, "n"); err != nil {
				return err
			}
			_, err := w.book.Commit(ctx, tx)
			return err
		}()
		if !view.Lost(err) {
			return err
		}
	}
}

// What a transaction reads of one on its way is committed only if that one is.
func TestWhoReadWhatDidNotBecomeSoLoses(t *testing.T) {
	w := newWorld(t)
	w.set("n", "0")
	w.set("other", "0")
	end := w.line(t)
	first := make(chan *view.Tx)
	go func() {
		tx, _ := w.eager(t, "n")
		first <- tx
	}()
	end()
	one := <-first
	if _, err := w.kv.Get(one, "", quipu.StoreShared, []string{"other"}); err != nil {
		t.Fatal(err)
	}
	w.put(t, one, "n", "1")
	w.set("other", "changed") // one has lost, and does not know
	second, third := make(chan string), make(chan error)
	var two *view.Tx
	go func() {
		var saw string
		two, saw = w.eager(t, "n")
		second <- saw
		w.put(t, two, "n", saw+"2")
		_, err := w.book.Commit(t.Context(), two)
		third <- err
	}()
	_, err := w.book.Commit(t.Context(), one)
	if !view.Lost(err) {
		t.Fatalf("one: %v", err)
	}
	saw := <-second
	if err := <-third; saw == "1" && !view.Lost(err) || saw == "0" && err != nil {
		t.Errorf("two saw %q and ended with %v", saw, err)
	}
	for _, tx := range []*view.Tx{one, two} {
		if err := tx.Close(); err != nil {
			t.Error(err)
		}
	}
	if got := w.get("n"); got != "0" && got != "02" {
		t.Errorf("n is %q", got)
	}
}
