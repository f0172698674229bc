package deploy

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/quipu-run/quipu"
	"pgregory.net/rapid"
)

// after is a function that was deployed so often.
func after(deploys int) *history {
	h := newHistory("f")
	for n := 1; n <= deploys; n++ {
		h.deploy(content(n), true)
	}
	return h
}

func content(n int) quipu.Function {
	return quipu.Function{Name: "f", App: "app", Revision: fmt.Sprintf("%012x", n)}
}

// shown is the traffic as "number=percent", the newest first.
func shown(h *history) string {
	var parts []string
	for _, p := range h.Parts {
		parts = append(parts, fmt.Sprintf("%d=%d", h.of[p.Revision].Number, p.Percent))
	}
	return strings.Join(parts, " ")
}

func (h *history) must(t *testing.T, err error, traffic string) {
	t.Helper()
	if err != nil || shown(h) != traffic {
		t.Fatalf("traffic %s, %v; want %s", shown(h), err, traffic)
	}
}

func TestRollingBackGoesTheWayThatTheTrafficCame(t *testing.T) {
	h := after(3)
	h.must(t, nil, "3=100")
	h.must(t, h.rollback(""), "2=100")
	h.must(t, h.rollback(""), "1=100")
	if err := h.rollback(""); quipu.CodeOf(err) != quipu.CodeNoFormer {
		t.Fatal("before the first there was ", err)
	}
	h.must(t, h.rollback("3"), "3=100")
	h.must(t, h.rollback(content(1).Revision), "1=100")
	h.deploy(content(4), true)
	h.must(t, h.rollback(""), "1=100") // 2 and 3 were taken back before
}

// What most of the calls got is what a new revision took over from, also when it began with a part.
func TestACanaryThatIsTakenBackLeavesWhatItCameFrom(t *testing.T) {
	h := after(1)
	h.deploy(content(2), false)
	h.must(t, nil, "1=100")
	h.must(t, h.split([]quipu.Part{{Revision: "1", Percent: 90}, {Revision: "2", Percent: 10}}), "2=10 1=90")
	if h.head().Number != 2 {
		t.Fatal("the triggers are those of ", h.head().Number)
	}
	h.must(t, h.rollback(""), "1=100")
	h.must(t, h.split([]quipu.Part{{Revision: "2", Percent: 100}}), "2=100")
	h.must(t, h.rollback(""), "1=100")
}

func TestTheSameContentIsTheSameRevision(t *testing.T) {
	h := after(3)
	if f := h.deploy(content(1), true); f.Number != 1 || len(h.of) != 3 {
		t.Fatalf("revision %d of %d", f.Number, len(h.of))
	}
	h.must(t, nil, "1=100")
	h.must(t, h.rollback(""), "3=100")
}

func TestASplitThatCannotBeIsRefusedAndChangesNothing(t *testing.T) {
	h := after(12)
	if err := h.alias("blue", "12"); err != nil {
		t.Fatal(err)
	}
	part := func(which string, percent int) quipu.Part { return quipu.Part{Revision: which, Percent: percent} }
	var many []quipu.Part
	for n := range quipu.PartsMax + 1 {
		many = append(many, part(fmt.Sprint(n+1), 9))
	}
	for name, c := range map[string]struct {
		parts []quipu.Part
		want  quipu.Code
	}{
		"nothing":            {nil, quipu.CodeSplit},
		"too little":         {[]quipu.Part{part("1", 99)}, quipu.CodeSplit},
		"too much":           {[]quipu.Part{part("1", 60), part("2", 60)}, quipu.CodeSplit},
		"negative":           {[]quipu.Part{part("1", 110), part("2", -10)}, quipu.CodeSplit},
		"zero":               {[]quipu.Part{part("1", 100), part("2", 0)}, quipu.CodeSplit},
		"overflow":           {[]quipu.Part{part("1", math.MaxInt), part("2", math.MaxInt)}, quipu.CodeSplit},
		"twice, two ways":    {[]quipu.Part{part("12", 50), part("blue", 50)}, quipu.CodeSplit},
		"too many":           {many, quipu.CodeSplit},
		"unknown":            {[]quipu.Part{part("13", 100)}, quipu.CodeNoRevision},
		"empty":              {[]quipu.Part{part("", 100)}, quipu.CodeNoRevision},
		"part of a revision": {[]quipu.Part{part("0000", 100)}, quipu.CodeNoRevision},
	} {
		if err := h.split(c.parts); quipu.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
		h.must(t, nil, "12=100")
	}
}

func TestAliasesAreNamesThatNothingElseCanBe(t *testing.T) {
	h := after(2)
	for _, bad := range []string{"", "7", "A", "-x", "a b", "abcdef012345", strings.Repeat("a", 64)} {
		if err := h.alias(bad, "1"); quipu.CodeOf(err) != quipu.CodeUsage {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if err := h.alias("stable", "3"); quipu.CodeOf(err) != quipu.CodeNoRevision {
		t.Error(err)
	}
	for n := range quipu.AliasesMax {
		if err := h.alias(fmt.Sprint("a", n), "1"); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.alias("more", "1"); quipu.CodeOf(err) != quipu.CodeTooMany {
		t.Error(err)
	}
	if err := h.alias("a0", "2"); err != nil { // it moves
		t.Error(err)
	}
	if f, err := h.find("a0"); err != nil || f.Number != 2 {
		t.Error(f.Number, err)
	}
	if err := h.alias("a0", ""); err != nil {
		t.Error(err)
	}
	if _, err := h.find("a0"); quipu.CodeOf(err) != quipu.CodeNoRevision {
		t.Error(err)
	}
}

// The parts are kept within what chance allows, a key always goes to the same revision, and one that went to the newest
// goes on doing so while its part grows.
func TestASplitIsByKeyAndKeepsItsParts(t *testing.T) {
	h := after(2)
	const calls = 20_000
	var earlier map[string]bool
	for _, percent := range []int{1, 10, 50, 99} {
		h.must(t, h.split([]quipu.Part{{Revision: "1", Percent: 100 - percent}, {Revision: "2", Percent: percent}}), fmt.Sprintf("2=%d 1=%d", percent, 100-percent))
		newest := map[string]bool{}
		for n := range calls {
			key := fmt.Sprint("call-", n)
			f := h.choose(key)
			if again := h.choose(key); again.Revision != f.Revision {
				t.Fatal("one key, two revisions")
			}
			if f.Number == 2 {
				newest[key] = true
			}
		}
		p := float64(percent) / 100
		if off := math.Abs(float64(len(newest)) - calls*p); off > 5*math.Sqrt(calls*p*(1-p)) {
			t.Errorf("%d percent: %d of %d calls", percent, len(newest), calls)
		}
		for key := range earlier {
			if !newest[key] {
				t.Fatalf("%s went back when the part grew to %d", key, percent)
			}
		}
		earlier = newest
	}
}

func TestWhatIsRememberedHasAReason(t *testing.T) {
	h := after(3)
	for _, err := range []error{h.rollback("1"), h.alias("old", "2")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for n := 4; n <= 30; n++ {
		h.deploy(content(n), false)
		h.forget([]string{content(3).Revision}) // which has a call that does not end
	}
	want := map[int]bool{1: true, 2: true, 3: true} // traffic, alias, call
	for n := 21; n <= 30; n++ {
		want[n] = true
	}
	got := map[int]bool{}
	for _, f := range h.of {
		got[f.Number] = true
	}
	if !maps.Equal(got, want) {
		t.Errorf("remembered %v, want %v", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
	h.deploy(content(31), true)
	h.forget(nil)
	h.must(t, h.rollback(""), "1=100") // from which 31 took over, however long ago it was deployed
	if _, ok := h.of[content(3).Revision]; ok {
		t.Error("it is remembered without a reason")
	}
}

// Whatever is done to a function, its traffic is whole and goes to what is remembered.
func TestTrafficIsAlwaysWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := after(1)
		which := rapid.Custom(func(t *rapid.T) string { return fmt.Sprint(rapid.IntRange(1, 40).Draw(t, "number")) })
		t.Repeat(map[string]func(*rapid.T){
			"deploy": func(t *rapid.T) {
				h.deploy(content(rapid.IntRange(1, 40).Draw(t, "content")), rapid.Bool().Draw(t, "traffic"))
				h.forget(nil)
			},
			"split": func(t *rapid.T) {
				percent := rapid.IntRange(-10, 110).Draw(t, "percent")
				_ = h.split([]quipu.Part{{Revision: which.Draw(t, "a"), Percent: percent}, {Revision: which.Draw(t, "b"), Percent: 100 - percent}})
			},
			"rollback": func(t *rapid.T) { _ = h.rollback(which.Draw(t, "to")) },
			"undo":     func(*rapid.T) { _ = h.rollback("") },
			"alias": func(t *rapid.T) {
				_ = h.alias(rapid.SampledFrom([]string{"a", "b"}).Draw(t, "alias"), which.Draw(t, "revision"))
			},
			"": func(t *rapid.T) { checkWhole(t, h) },
		})
	})
}

func checkWhole(t *rapid.T, h *history) {
	total, newest := 0, math.MaxInt
	for _, p := range h.Parts {
		f, ok := h.of[p.Revision]
		if !ok || p.Percent < 1 || f.Number >= newest {
			t.Fatalf("parts %v of %v", h.Parts, h.of)
		}
		total, newest = total+p.Percent, f.Number
	}
	if total != 100 || h.head().Revision != h.Parts[0].Revision {
		t.Fatalf("%d percent, head %d", total, h.head().Number)
	}
	for _, name := range []map[string]string{h.Aliases, h.Before} {
		for _, revision := range name {
			if _, ok := h.of[revision]; !ok {
				t.Fatalf("%s leads to what is forgotten: %v", revision, name)
			}
		}
	}
	if most := quipu.RevisionsKept + 2*len(h.Parts) + len(h.Aliases); len(h.of) > most {
		t.Fatalf("%d revisions are remembered, the most is %d", len(h.of), most)
	}
}
