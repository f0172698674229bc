package locallog

import (
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/quipu-run/quipu"
)

// randomPostings go up by seq, with gaps, further segments and new terms.
func randomPostings(rng *rand.Rand, n int) []posting {
	all := make([]posting, 0, n)
	p := posting{seq: 3, segment: 1, offset: segmentHeaderBytes}
	for range n {
		p.seq += quipu.Seq(1 + rng.Uint64N(1<<rng.UintN(20)))
		p.offset, p.size = p.offset+p.size+rng.Uint32N(5000), 8*(1+rng.Uint32N(1<<rng.UintN(17)))
		if rng.IntN(100) == 0 {
			p.segment, p.offset = p.segment+1+rng.Uint32N(3), rng.Uint32N(1<<29)
		}
		if rng.IntN(200) == 0 {
			p.seq = quipu.MakeSeq(p.seq.Term()+1, p.seq.Pos()+1)
		}
		all = append(all, p)
	}
	return all
}

// Whatever the checkpoints between them, blocks answer the neighbours and ranges of a stream as the plain list does, and
// never those of the streams beside it.
func TestBlocksOfPostingsAnswerAsTheListDoes(t *testing.T) {
	eachSeed(t, 6, func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 5))
		x, err := openIndex(vfs.NewMem(), "index", slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := x.close(); err != nil {
				t.Error(err)
			}
		}()
		streams := map[string][]posting{"": nil, "a": nil, "ab": nil, "b": nil}
		for tag := range streams {
			streams[tag] = randomPostings(rng, rng.IntN(2000))
			for rest := streams[tag]; len(rest) > 0; {
				n := 1 + rng.IntN(len(rest))
				b := x.db.NewBatch()
				if err := putStream(b, 7, tag, &stream{rest[:n]}); err != nil {
					t.Fatal(err)
				}
				if err := x.apply(b); err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
		}
		for tag, list := range streams {
			for range 300 {
				checkStream(t, x, tag, list, rng)
			}
		}
	})
}

func checkStream(t *testing.T, x *index, tag string, list []posting, rng *rand.Rand) {
	t.Helper()
	someSeq := func() quipu.Seq {
		if len(list) == 0 || rng.IntN(10) == 0 {
			return []quipu.Seq{0, 1, quipu.SeqMax}[rng.IntN(3)]
		}
		return list[rng.IntN(len(list))].seq + quipu.Seq(rng.Uint64N(3)) - 1
	}
	from, to, limit := someSeq(), someSeq(), 1+rng.IntN(400)
	var want []posting
	wantLast, wantOK := posting{}, false
	for _, p := range list {
		if p.seq >= from && p.seq <= to && len(want) < limit {
			want = append(want, p)
		}
		if p.seq <= to {
			wantLast, wantOK = p, true
		}
	}
	got, err := x.scan(7, tag, from, to, nil, limit)
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("scan of %q from %s to %s, at most %d: %d postings, want %d, %v", tag, from, to, limit, len(got), len(want), err)
	}
	last, ok, err := x.last(7, tag, to)
	if err != nil || ok != wantOK || last != wantLast {
		t.Fatalf("last of %q up to %s: %+v %t %v, want %+v", tag, to, last, ok, err, wantLast)
	}
}

// A block that appendBlock did not make is refused or gives postings in order up to its key; it never panics.
func FuzzPostings(f *testing.F) {
	list := randomPostings(rand.New(rand.NewPCG(1, 1)), 9)
	f.Add(postingKey(nil, 1, "t", list[8].seq), appendBlock(nil, list))
	f.Add(postingKey(nil, 1, "t", list[0].seq), appendBlock(nil, list[:1]))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		var all []posting
		if err := eachPosting(key, value, func(p posting) bool {
			all = append(all, p)
			return true
		}); err != nil {
			return
		}
		for i := 1; i < len(all); i++ {
			if all[i].seq <= all[i-1].seq {
				t.Fatalf("%+v after %+v", all[i], all[i-1])
			}
		}
		if last := quipu.Seq(be.Uint64(key[len(key)-8:])); all[len(all)-1].seq != last {
			t.Fatalf("ends at %s, its key at %s", all[len(all)-1].seq, last)
		}
	})
}
