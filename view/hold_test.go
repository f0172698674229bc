package view_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/kv"
	"github.com/quipu-run/quipu/view"
)

// answering is a log whose appends end with a given error.
type answering struct {
	quipu.Log
	err error
}

func (a *answering) Append(ctx context.Context, b quipu.Book, d quipu.Draft) (quipu.Seq, error) {
	if a.err != nil {
		return 0, a.err
	}
	return a.Log.Append(ctx, b, d)
}

// What a transaction holds outside of the log is let go of when its record is applied or will never be, and not before: if
// the outcome is unknown, the record may be found after a restart.
func TestWhatATransactionHoldsIsLetGoOfWhenItsOutcomeIsKnown(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"committed": {nil, true},
		"lost":      {&quipu.Error{Code: quipu.CodeConflict}, true},
		"disk full": {&quipu.Error{Code: quipu.CodeDiskFull}, true},
		"unknown":   {&quipu.Error{Code: quipu.CodeUnknown}, false},
	} {
		w := newWorld(t)
		w.close()
		w.log = &answering{w.log, c.err}
		w.open(view.Options{})
		tx := w.book.Begin(t.Context(), nil)
		released := false
		tx.OnClose(func() { released = true })
		if err := w.kv.Change(tx, "", quipu.StoreShared, []quipu.Change{{Key: "k", Value: []byte("1")}}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.book.Commit(t.Context(), tx); quipu.CodeOf(err) != quipu.CodeOf(c.err) {
			t.Fatalf("%s: %v", name, err)
		}
		if released {
			t.Errorf("%s: let go of before its end", name)
		}
		if err := tx.Close(); err != nil {
			t.Fatal(err)
		}
		if released != c.want {
			t.Errorf("%s: let go of: %v", name, released)
		}
		late := false
		if tx.OnClose(func() { late = true }); late != c.want {
			t.Errorf("%s: what came after its end was let go of: %v", name, late)
		}
	}
}

// Who reads at a snapshot is known from before it is taken until it is gone; who reads nothing is not.
func TestReadersAreKnownWhileTheyHaveASnapshot(t *testing.T) {
	w := newWorld(t)
	w.close()
	var told []string
	w.open(view.Options{Reading: func() (pinned, done func()) {
		told = append(told, "reading")
		return func() { told = append(told, "pinned") }, func() { told = append(told, "done") }
	}})
	blind := w.book.Look()
	tx := w.book.Look()
	for range 2 {
		if _, _, err := tx.Get(kv.Name, "k"); err != nil {
			t.Fatal(err)
		}
	}
	if len(told) != 2 || told[0] != "reading" || told[1] != "pinned" {
		t.Errorf("told %v", told)
	}
	for range 2 {
		if err := tx.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := blind.Close(); err != nil || len(told) != 3 || told[2] != "done" {
		t.Errorf("told %v, %v", told, err)
	}
}

// Who looks at much can be stopped.
func TestALookEndsWithItsContext(t *testing.T) {
	w := newWorld(t)
	w.set("a", "1")
	w.set("b", "2")
	ctx, stop := context.WithCancel(t.Context())
	tx := w.book.LookUntil(ctx)
	defer tx.Close()
	seen := 0
	err := tx.Peek(kv.Name, "", "\xff", func(string, []byte) bool {
		seen++
		stop()
		return true
	})
	if seen != 1 || err == nil {
		t.Errorf("%d were seen, %v", seen, err)
	}
}

// Who waits for the end of a transaction hears whether what was done from then on counts: not if it was lost or given up, nor if it went
// back to a place before. Nobody hears anything if the outcome is unknown.
func TestTheEndOfATransactionIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"committed": {nil, "first counts, back does not, last counts"},
		"lost":      {&quipu.Error{Code: quipu.CodeConflict}, "first does not, back does not, last does not"},
		"unknown":   {&quipu.Error{Code: quipu.CodeUnknown}, ""},
		"given up":  {errGivenUp, "first does not, back does not, last does not"},
	} {
		w := newWorld(t)
		w.close()
		w.log = &answering{w.log, c.err}
		w.open(view.Options{})
		tx := w.book.Begin(t.Context(), nil)
		var told []string
		tell := func(who string) {
			tx.OnEnd(func(counts bool) {
				if counts {
					told = append(told, who+" counts")
				} else {
					told = append(told, who+" does not")
				}
			})
		}
		put := func(key string) {
			t.Helper()
			if err := w.kv.Change(tx, "", quipu.StoreShared, []quipu.Change{{Key: key, Value: []byte("1")}}); err != nil {
				t.Fatal(err)
			}
		}
		tell("first")
		put("a")
		mark := tx.Mark()
		tell("back")
		put("b")
		tx.Rollback(mark)
		tell("last")
		put("c")
		if c.err != errGivenUp {
			if _, err := w.book.Commit(t.Context(), tx); quipu.CodeOf(err) != quipu.CodeOf(c.err) {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if len(told) > 0 {
			t.Errorf("%s: told before its end: %v", name, told)
		}
		for range 2 {
			if err := tx.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if got := strings.Join(told, ", "); got != c.want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

var errGivenUp = errors.New("it is not committed")

// A transaction may rely on what a record newer than its snapshot has left: it commits as long as nobody has written that since.
func TestAReadThatIsNewerThanTheSnapshotIsChecked(t *testing.T) {
	for name, overwritten := range map[string]bool{"as it was": false, "written since": true} {
		w := newWorld(t)
		w.set("lease", "first")
		tx := w.book.Begin(t.Context(), nil)
		if got, err := w.kv.Get(tx, "", quipu.StoreShared, []string{"other"}); err != nil || got[0].Exists() {
			t.Fatal(got, err)
		} // the snapshot is taken
		w.set("lease", "second")
		at, err := w.log.Tail(t.Context(), w.id, quipu.Linearizable)
		if err != nil {
			t.Fatal(err)
		}
		if at <= tx.Snapshot() {
			t.Fatalf("%s is not newer than %s", at, tx.Snapshot())
		}
		for range 2 { // once is as good
			tx.ReadAt(kv.Name, kvKey(t, w, "lease"), at)
		}
		if overwritten {
			w.set("lease", "third")
		}
		if err := w.kv.Change(tx, "", quipu.StoreShared, []quipu.Change{{Key: "k", Value: []byte("1")}}); err != nil {
			t.Fatal(err)
		}
		_, err = w.book.Commit(t.Context(), tx)
		if lost := quipu.CodeOf(err) == quipu.CodeConflict; lost != overwritten || err != nil && !lost {
			t.Errorf("%s: %v", name, err)
		}
		if err := tx.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// kvKey is a shared key as the view of keys and values has it.
func kvKey(t *testing.T, w *world, key string) (name string) {
	t.Helper()
	tx := w.book.Look()
	defer tx.Close()
	if err := tx.Scan(kv.Name, "", "", func(k string, _ []byte) bool {
		if strings.HasSuffix(k, key) {
			name = k
		}
		return name == ""
	}); err != nil || name == "" {
		t.Fatal(name, err)
	}
	return name
}
