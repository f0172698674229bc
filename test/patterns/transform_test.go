package patterns

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
)

type text struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

type facts struct {
	Words   int    `json:"words"`
	Longest string `json:"longest"`
	SHA256  string `json:"sha256"`
}

type total struct {
	Texts   int `json:"texts"`
	Words   int `json:"words"`
	Crashed int `json:"crashed"`
}

// The program kills itself in a fifth of its calls, and instances and the node are killed besides. A thousand texts make a thousand
// facts, each announced and added up once, and right.
func TestTransformAThousandTextsAreAThousandFacts(t *testing.T) {
	t.Parallel()
	const texts, batch = 1000, 50
	rng := random(t)
	all := write(rng, texts)
	n := start(t, example(t, "transform"))
	killing := n.chaos(rng)
	inParallel(texts/batch, func(i int) {
		body, err := json.Marshal(all[i*batch : (i+1)*batch])
		if err != nil {
			t.Error(err)
		}
		if a := n.send(fmt.Sprint("batch-", i), "POST", "/texts", string(body)); a.status != http.StatusOK {
			t.Errorf("batch %d: %d %s", i, a.status, a.body)
		}
	})
	n.awaitEvents("facts", texts)
	killing.end()
	var sums total
	eventually(t, "all facts are added up", func() bool {
		sums = want[total](t, n.get("/total"))
		return sums.Texts >= texts
	})
	words := 0
	for _, one := range all {
		wants := study(one.Text)
		words += wants.Words
		if got := want[facts](t, n.get("/facts/"+one.Name)); got != wants {
			t.Errorf("facts of %s: %+v, want %+v", one.Name, got, wants)
		}
	}
	if sums.Texts != texts || sums.Words != words {
		t.Errorf("the total is %+v, want %d texts and %d words", sums, texts, words)
	}
	wantAnnouncedOnce(t, events[text](n, "facts"), all)
	t.Logf("%d of %d texts saw a crash", sums.Crashed, texts)
	if sums.Crashed < texts/10 {
		t.Errorf("only %d texts saw a crash: the function does not crash as often as it says", sums.Crashed)
	}
}

func wantAnnouncedOnce(t *testing.T, announced, all []text) {
	t.Helper()
	var got, wants []string
	for _, a := range announced {
		got = append(got, a.Name)
	}
	for _, one := range all {
		wants = append(wants, one.Name)
	}
	slices.Sort(got)
	slices.Sort(wants)
	if !slices.Equal(got, wants) {
		t.Errorf("%d facts are announced, of %d texts; want each of %d once", len(got), len(slices.Compact(got)), len(wants))
	}
}

func write(rng *rand.Rand, n int) []text {
	words := strings.Fields("so much depends upon a red wheel barrow glazed with rain water beside the white chickens")
	all := make([]text, n)
	for i := range all {
		some := make([]string, 1+rng.IntN(30))
		for j := range some {
			some[j] = words[rng.IntN(len(words))]
		}
		all[i] = text{fmt.Sprintf("text-%04d", i), strings.Join(some, " ")}
	}
	return all
}

// study is what the function should make of a text.
func study(content string) facts {
	words := strings.Split(content, " ")
	longest := slices.MaxFunc(words, func(a, b string) int { return len(a) - len(b) }) // the first of several
	sum := sha256.Sum256([]byte(content))
	return facts{len(words), longest, hex.EncodeToString(sum[:])}
}
