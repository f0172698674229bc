package ledger_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/ledger"
	"github.com/quipu-run/quipu/xtest"
)

// unsure is a log that now and then does not answer what it did: before it did it, or after. The history draws which.
type unsure struct {
	*xtest.Model
	fate func() string
}

func (u *unsure) AppendBatch(ctx context.Context, book quipu.Book, ds []quipu.Draft) ([]quipu.Seq, error) {
	switch u.fate() {
	case "lost":
		return nil, &quipu.Error{Code: quipu.CodeNoNode}
	case "busy":
		return nil, &quipu.Error{Code: quipu.CodeOverloaded}
	case "unanswered":
		_, _ = u.Model.AppendBatch(ctx, book, ds) // nobody hears of it
		return nil, &quipu.Error{Code: quipu.CodeUnknown}
	}
	return u.Model.AppendBatch(ctx, book, ds)
}

// history is a ledger, its writer, and what everybody was told of it.
type history struct {
	log    *unsure
	all    *ledger.Ledgers
	w      *ledger.Writer
	acked  []string // the data of the entries, by id
	seen   []string // what readers were shown
	closed bool     // Open or Close said so
	last   int64    // then
	sent   int
}

func newHistory(t *rapid.T) *history {
	h := &history{log: &unsure{Model: newModel()}}
	h.log.fate = func() string {
		return rapid.SampledFrom([]string{"", "", "", "", "lost", "busy", "unanswered", "unanswered"}).Draw(t, "fate")
	}
	h.all = on(h.log)
	w, err := h.all.Create(context.Background(), "x")
	if err != nil {
		t.Fatal(err)
	}
	h.w = w
	return h
}

func (h *history) append(t *rapid.T) {
	h.sent++
	data := fmt.Sprint("entry ", h.sent)
	id, err := h.w.Append(context.Background(), []byte(data))
	if err != nil {
		return
	}
	if h.closed {
		t.Fatalf("%s was acknowledged after the ledger was closed", data)
	}
	if id != int64(len(h.acked)) {
		t.Fatalf("%s has id %d after %d acknowledged ones", data, id, len(h.acked))
	}
	h.acked = append(h.acked, data)
}

// ends notes an end, which must be the one that was told before.
func (h *history) ends(t *rapid.T, last int64) {
	if h.closed && last != h.last {
		t.Fatalf("the last entry was %d and is %d", h.last, last)
	}
	h.closed, h.last = true, last
}

func (h *history) closeByWriter(t *rapid.T) {
	if last, err := h.w.Close(context.Background()); err == nil {
		h.ends(t, last)
	}
}

func (h *history) open(t *rapid.T) {
	r, err := h.all.Open(context.Background(), "x")
	if err != nil {
		return
	}
	info, err := r.Info(context.Background())
	if err != nil || !info.Closed {
		t.Fatalf("opened, and it is %+v, %v", info, err)
	}
	h.ends(t, info.Last)
}

func (h *history) read(t *rapid.T) {
	r, err := h.all.OpenReadOnly(context.Background(), "x")
	if err != nil {
		t.Fatal(err)
	}
	info, err := r.Info(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if h.closed && (!info.Closed || info.Last != h.last) {
		t.Fatalf("it was closed at %d, and is %+v", h.last, info)
	}
	var all []string
	for e, err := range r.Read(context.Background(), 0, info.Last) {
		if err != nil || e.ID != int64(len(all)) {
			t.Fatalf("entry %d, where %d belongs, of %d: %v", e.ID, len(all), info.Last, err)
		}
		all = append(all, string(e.Data))
	}
	if int64(len(all)) != info.Last+1 || len(all) < len(h.acked) || !slices.Equal(all[:len(h.acked)], h.acked) {
		t.Fatalf("read %q of %d, acknowledged were %q", all, info.Last, h.acked)
	}
	if len(all) < len(h.seen) || !slices.Equal(all[:len(h.seen)], h.seen) {
		t.Fatalf("read %q, after %q", all, h.seen)
	}
	h.seen = all
}

// A history of one ledger, whose log loses requests and answers and crashes, keeps every promise at every step.
func TestRandomHistoriesKeepThePromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory(t)
		t.Repeat(map[string]func(*rapid.T){
			"append":  h.append,
			"append2": h.append,
			"append3": h.append,
			"close":   h.closeByWriter,
			"open":    h.open,
			"crash":   func(*rapid.T) { h.log.Crash() },
			"":        h.read,
		})
		h.log.fate = func() string { return "" } // faults heal
		h.open(t)
		if !h.closed {
			t.Fatal("a healed log does not let the ledger be opened")
		}
		h.append(t)
		h.read(t)
	})
}
