package patterns

import (
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
)

// Everybody who signs up gets one letter and is counted once, whatever is killed. Those for whom there is no letter hold nobody
// up, and get theirs when it is there and they are redriven.
func TestEventsAreHandledOnceAndDeadLettersAfterAFix(t *testing.T) {
	t.Parallel()
	needs(t, "node")
	const users, finns = 200, 3
	app := example(t, "event-driven")
	n := start(t, app)
	languages := []string{"en", "es", "qu"}
	language := func(i int) string {
		if i < finns {
			return "fi"
		}
		return languages[i%len(languages)]
	}
	counts := map[string]int{}
	for i := range users {
		counts[language(i)]++
	}

	killing := n.chaos(random(t))
	inParallel(users, func(i int) {
		a := n.send(fmt.Sprint("signup-", i), "POST", "/signups", fmt.Sprintf(`{"name": "user-%d", "language": %q}`, i, language(i)))
		if a.status != http.StatusOK {
			t.Errorf("user %d: %d %s", i, a.status, a.body)
		}
	})
	eventually(t, "all users are counted", func() bool {
		return fmt.Sprint(want[map[string]int](t, n.get("/counts"))) == fmt.Sprint(counts)
	})
	n.awaitEvents("welcome-dead", finns)
	n.awaitEvents("letters", users-finns)
	killing.end()

	edit(t, filepath.Join(app, "letters.json"), `"en"`, `"fi": "Tervetuloa, NAME!", "en"`)
	n.cli("deploy", app)
	n.cli("topics", "redrive", "welcome-dead")
	n.awaitEvents("letters", users)
	wantOneLetterEach(t, events[letter](n, "letters"), users)
	if got := want[map[string]int](t, n.get("/counts")); fmt.Sprint(got) != fmt.Sprint(counts) {
		t.Errorf("counted %v, want %v: what was redriven was for another function", got, counts)
	}
}

type letter struct {
	To   string `json:"to"`
	Text string `json:"text"`
}

func wantOneLetterEach(t *testing.T, letters []letter, users int) {
	t.Helper()
	texts := map[string]string{}
	for _, l := range letters {
		if texts[l.To] != "" {
			t.Errorf("%s has two letters", l.To)
		}
		texts[l.To] = l.Text
	}
	if len(texts) != users {
		t.Errorf("%d users have letters, want %d", len(texts), users)
	}
	for i, want := range []string{"Tervetuloa, user-0!", "Tervetuloa, user-1!", "Tervetuloa, user-2!", "Welcome, user-3!"} {
		if got := texts[fmt.Sprint("user-", i)]; got != want {
			t.Errorf("user-%d reads %q, want %q", i, got, want)
		}
	}
}
