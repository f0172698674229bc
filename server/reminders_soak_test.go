package server

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

var soakReminders = flag.Int("soak-reminders", 100, "how many reminders: go test ./server -run RemindersSoak -soak-reminders 1000 -soak-kills 20 -v")

// However often the node is killed, each reminder has its effect once.
func TestRemindersSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts the program some times")
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	reminders, kills, actors := *soakReminders, *soakKills, min(*soakReminders, 50)
	k := spawn(t, t.TempDir(), "serve")
	deployCounters(&k.node)
	for a := range actors {
		var plan []string
		for i := a; i < reminders; i += actors {
			plan = append(plan, fmt.Sprintf(`{"name":"r%d","due":"%dms"}`, i, rng.IntN((kills+1)*700)))
		}
		k.actor(fmt.Sprintf("counter/c%d/method/plan", a), "["+strings.Join(plan, ",")+"]").want(t, 200, "")
	}
	for range kills {
		time.Sleep(time.Duration(rng.IntN(700)) * time.Millisecond) // the moment is what is random here
		k.kill()
		k.up()
	}
	done := func() (n int) {
		for i := range reminders {
			if got := k.state(fmt.Sprint("done-r", i)); got == "1" {
				n++
			} else if got != "" {
				t.Fatalf("reminder r%d took effect %s times", i, got)
			}
		}
		return n
	}
	eventually(t, "all have had their effect", func() bool { return done() == reminders })
	for a := range actors {
		if got, want := k.counted(fmt.Sprint("c", a)), fmt.Sprint((reminders+actors-1-a)/actors); got != want {
			t.Errorf("actor c%d has counted %s of %s", a, got, want)
		}
	}
}
