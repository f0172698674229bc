package alarm_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/alarm"
	"github.com/quipu-run/quipu/test/booktest"
	"github.com/quipu-run/quipu/timer"
	"github.com/quipu-run/quipu/view"
)

var noon = booktest.Noon

// world is a log with timers and alarms on it, whose deliveries belong to the test.
type world struct {
	*booktest.World
	timers  *timer.View
	runner  *timer.Runner
	deliver func(w *world, a quipu.Alarm, settle func(*view.Tx) error) alarm.Outcome
	alarm.Outside

	mu   sync.Mutex
	came []time.Time // of all deliveries
}

// effects is a view of what applications did.
type effects struct{}

func (effects) Name() string { return "effects" }

func (effects) Apply(b *view.Batch, op []byte, at view.At) error {
	return b.Set("effects", string(op)+"/"+at.Seq.String(), nil)
}

func delivered(*world, quipu.Alarm, func(*view.Tx) error) alarm.Outcome {
	return alarm.Outcome{Fate: alarm.Delivered}
}

// atomically is what an atomic function does: its effect and the settlement are one record.
func atomically(w *world, a quipu.Alarm, settle func(*view.Tx) error) alarm.Outcome {
	_, err := w.World.Book.Change(context.Background(), func(tx *view.Tx) error {
		if err := tx.Do(quipu.Op{View: "effects", Body: []byte(a.Name)}); err != nil {
			return err
		}
		return settle(tx)
	})
	if err != nil {
		return alarm.Outcome{Fate: alarm.Missed, Cause: err.Error()}
	}
	return alarm.Outcome{Fate: alarm.Settled}
}

func newWorld(t testing.TB, deliver func(*world, quipu.Alarm, func(*view.Tx) error) alarm.Outcome) *world {
	w := &world{World: booktest.New(t), deliver: deliver}
	w.Run(w.start, w.stop)
	return w
}

func (w *world) start() {
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError + 1}))
	w.timers = timer.New()
	v := alarm.New(w.timers)
	w.Open(w.timers, v, effects{})
	w.Outside = alarm.Outside{View: v, Book: w.World.Book}
	deliver := func(_ context.Context, a quipu.Alarm, settle func(*view.Tx) error) alarm.Outcome {
		w.mu.Lock()
		w.came = append(w.came, w.Clock.Now())
		w.mu.Unlock()
		return w.deliver(w, a, settle)
	}
	courier := alarm.NewCourier(alarm.CourierOptions{View: v, Book: w.World.Book, Clock: w.Clock, Logger: logger,
		Deliver: map[quipu.AlarmKind]alarm.Deliver{quipu.AlarmJob: deliver, quipu.AlarmReminder: deliver}})
	w.runner = timer.NewRunner(timer.Options{Book: w.World.Book, View: w.timers, Clock: w.Clock, Logger: logger,
		Handlers: map[string]timer.Handler{string(quipu.AlarmJob): courier.Handle, string(quipu.AlarmReminder): courier.Handle}})
	w.runner.Start()
}

func (w *world) stop() {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	_ = w.runner.Close(over)
	w.Close()
	w.runner.Wait()
}

// count is how many deliveries there were.
func (w *world) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.came)
}

func job(name string) quipu.AlarmKey {
	return quipu.AlarmKey{Kind: quipu.AlarmJob, App: "app", Name: name}
}

func (w *world) set(a quipu.Alarm) {
	w.T.Helper()
	if err := w.SetAlarm(w.T.Context(), a); err != nil {
		w.T.Fatal(err)
	}
}

// gone tells whether there is no such alarm any more.
func (w *world) gone(k quipu.AlarmKey) bool {
	_, err := w.Alarm(w.T.Context(), k)
	if err != nil && quipu.CodeOf(err) != quipu.CodeNoAlarm {
		w.T.Fatal(err)
	}
	return err != nil
}

func TestAJobHappensAtItsTimesAndGoes(t *testing.T) {
	w := newWorld(t, delivered)
	w.set(quipu.Alarm{AlarmKey: job("a"), Schedule: "@every 10s", DueTime: "5s", Repeats: 3, Data: []byte(`{"n":1}`)})
	a, err := w.Alarm(t.Context(), job("a"))
	if err != nil || !a.Next.Equal(noon.Add(5*time.Second)) || string(a.Data) != `{"n":1}` || a.Schedule != "@every 10s" {
		t.Fatalf("%+v, %v", a, err)
	}
	for i, at := range []time.Duration{5 * time.Second, 15 * time.Second, 25 * time.Second} {
		w.Clock.Move(noon.Add(at - 1).Sub(w.Clock.Now()))
		if w.count() != i {
			t.Fatalf("%d deliveries before %s", w.count(), at)
		}
		w.Clock.Move(1)
		w.Eventually("a delivery", func() bool { return w.count() == i+1 })
		w.Eventually("it is settled", func() bool {
			a, err := w.Alarm(t.Context(), job("a"))
			return err != nil || a.Fired == i+1
		})
	}
	w.Eventually("it is gone", func() bool { return w.gone(job("a")) })
}

// Its times stay where they are, whatever attempts one of them takes; what always fails is given up after three retries, and comes
// again at its next time.
func TestAFailureIsTriedAgain(t *testing.T) {
	failing := true
	w := newWorld(t, func(w *world, a quipu.Alarm, _ func(*view.Tx) error) alarm.Outcome {
		w.mu.Lock()
		defer w.mu.Unlock()
		if failing {
			return alarm.Outcome{Fate: alarm.Failed, Cause: "it is broken"}
		}
		return alarm.Outcome{Fate: alarm.Delivered}
	})
	w.set(quipu.Alarm{AlarmKey: job("a"), Schedule: "0 * * * * *", Repeats: 2})
	w.Clock.Move(time.Minute)
	w.Eventually("the first attempt", func() bool {
		a, err := w.Alarm(t.Context(), job("a"))
		return err == nil && a.Attempts == 1 && a.Cause == "it is broken" && a.Next.Equal(noon.Add(61*time.Second))
	})
	for i := range 3 {
		w.Clock.Move(time.Second)
		w.Eventually("a retry", func() bool { return w.count() == i+2 })
		w.Eventually("its record", func() bool {
			a, err := w.Alarm(t.Context(), job("a"))
			return err == nil && (a.Attempts == i+2 || a.Fired == 1)
		})
	}
	a, err := w.Alarm(t.Context(), job("a"))
	if err != nil || a.Fired != 1 || !a.Next.Equal(noon.Add(2*time.Minute)) {
		t.Fatalf("after it was given up: %+v, %v", a, err)
	}
	w.mu.Lock()
	failing = false
	w.mu.Unlock()
	w.Clock.Move(time.Minute)
	w.Eventually("it is done", func() bool { return w.gone(job("a")) })
}

// What does not reach its application waits, says why, and comes at once when it is hastened.
func TestAJobWaitsForItsApplication(t *testing.T) {
	var there bool
	w := newWorld(t, func(w *world, a quipu.Alarm, _ func(*view.Tx) error) alarm.Outcome {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !there {
			return alarm.Outcome{Fate: alarm.Missed, Cause: "nobody is there"}
		}
		return alarm.Outcome{Fate: alarm.Delivered}
	})
	w.set(quipu.Alarm{AlarmKey: job("a"), DueTime: "0s"})
	w.Passing(100*time.Millisecond, "some tries", func() bool { return w.count() > 6 })
	a, err := w.Alarm(t.Context(), job("a"))
	if err != nil || a.Attempts != 0 || a.Cause != "nobody is there" {
		t.Fatalf("%+v, %v", a, err)
	}
	w.mu.Lock()
	there = true
	w.mu.Unlock()
	w.runner.Hasten("job", "app")
	w.Eventually("it is done", func() bool { w.runner.Hasten("job", "app"); return w.gone(job("a")) })
}

func TestWhatAnAlarmDoesToItselfStays(t *testing.T) {
	w := newWorld(t, func(w *world, a quipu.Alarm, settle func(*view.Tx) error) alarm.Outcome {
		_, err := w.World.Book.Change(context.Background(), func(tx *view.Tx) error {
			if a.Name == "again" {
				if err := w.View.SetAlarm(tx, quipu.Alarm{AlarmKey: a.AlarmKey, DueTime: "1h"}); err != nil {
					return err
				}
			} else if err := w.View.CancelAlarm(tx, a.AlarmKey); err != nil {
				return err
			}
			return settle(tx)
		})
		if err != nil {
			w.T.Error(err)
		}
		return alarm.Outcome{Fate: alarm.Settled}
	})
	w.set(quipu.Alarm{AlarmKey: job("again"), Schedule: "@every 1m", DueTime: "0s"})
	w.set(quipu.Alarm{AlarmKey: job("never"), Schedule: "@every 1m", DueTime: "0s"})
	w.Eventually("both came", func() bool {
		a, err := w.Alarm(t.Context(), job("again"))
		return err == nil && a.DueTime == "1h" && w.gone(job("never"))
	})
	a, err := w.Alarm(t.Context(), job("again"))
	if err != nil || a.Schedule != "" || !a.Next.Equal(noon.Add(time.Hour)) {
		t.Errorf("%+v, %v", a, err)
	}
}

// A job that was replaced while it was delivered has happened, and its delivery does not settle the other.
func TestADeliveryDoesNotSettleAnotherJobOfTheName(t *testing.T) {
	begun, end := make(chan struct{}), make(chan struct{})
	w := newWorld(t, func(*world, quipu.Alarm, func(*view.Tx) error) alarm.Outcome {
		begun <- struct{}{}
		<-end
		return alarm.Outcome{Fate: alarm.Delivered}
	})
	w.set(quipu.Alarm{AlarmKey: job("a"), DueTime: "0s"})
	<-begun
	w.set(quipu.Alarm{AlarmKey: job("a"), DueTime: "1m"})
	close(end)
	w.Passing(0, "the other stands", func() bool { a, err := w.Alarm(t.Context(), job("a")); return err == nil && a.DueTime == "1m" })
	w.Clock.Move(time.Minute)
	<-begun
	w.Eventually("the other is done", func() bool { return w.gone(job("a")) })
}

// Times that passed while no node ran are made up for by one delivery; then it goes on at its own times.
func TestMissedTimesAreMadeUpForByOne(t *testing.T) {
	for schedule, next := range map[string]time.Time{
		"@every 1m": noon.Add(601 * time.Minute), "PT1M": noon.Add(601 * time.Minute), "0 * * * * *": noon.Add(601 * time.Minute), "P1D": noon.AddDate(0, 0, 2),
	} {
		t.Run(schedule, func(t *testing.T) {
			w := newWorld(t, delivered)
			w.set(quipu.Alarm{AlarmKey: job("a"), Schedule: schedule})
			w.Stop()
			away := 10*time.Hour + 30*time.Second
			if schedule == "P1D" {
				away = 24*time.Hour + 30*time.Second
			}
			w.Clock.Move(away)
			w.Start()
			w.Eventually("one", func() bool { a, err := w.Alarm(t.Context(), job("a")); return err == nil && a.Next.Equal(next) })
			if n := w.count(); n > 2 { // one for the first time, one for all others
				t.Errorf("%d deliveries", n)
			}
		})
	}
}

func TestTimesToLiveEnd(t *testing.T) {
	w := newWorld(t, delivered)
	w.set(quipu.Alarm{AlarmKey: job("a"), Schedule: "@every 10s", TTL: "25s"})
	w.set(quipu.Alarm{AlarmKey: job("b"), Schedule: "@every 1h", TTL: "1m"})
	if !w.gone(job("b")) {
		t.Error("it ends before it is due, and stands")
	}
	for range 10 {
		w.Clock.Move(10 * time.Second)
		if w.gone(job("a")) {
			break
		}
		w.Eventually("its time", func() bool {
			a, err := w.Alarm(t.Context(), job("a"))
			return err != nil || a.Next.After(w.Clock.Now())
		})
	}
	if n := w.count(); n != 2 || !w.gone(job("a")) {
		t.Errorf("%d deliveries", n)
	}
}

func TestNamesAndListings(t *testing.T) {
	w := newWorld(t, delivered)
	ctx := t.Context()
	for app := range 3 {
		for i := range 5 {
			w.set(quipu.Alarm{AlarmKey: quipu.AlarmKey{Kind: quipu.AlarmJob, App: fmt.Sprint("app", app), Name: fmt.Sprintf("%c%d", 'a'+i%2, i)}, DueTime: "1h"})
			w.set(quipu.Alarm{AlarmKey: quipu.AlarmKey{Kind: quipu.AlarmReminder, ActorType: "T", ActorID: fmt.Sprint(app), Name: fmt.Sprintf("r%d", i)}, DueTime: "1h"})
		}
	}
	names := func(k quipu.AlarmKey) (all []string) {
		for after, pages := "", 0; ; pages++ {
			list, next, err := w.ListAlarms(ctx, k, after, 2)
			if err != nil || pages > 20 {
				t.Fatal(err, pages)
			}
			for _, a := range list {
				all = append(all, a.App+a.ActorID+"/"+a.Name)
			}
			if after = next; next == "" {
				return all
			}
		}
	}
	want := func(k quipu.AlarmKey, n int, first, last string) {
		t.Helper()
		if got := names(k); len(got) != n || n > 0 && (got[0] != first || got[n-1] != last) {
			t.Errorf("of %+v: %v", k, got)
		}
	}
	want(quipu.AlarmKey{Kind: quipu.AlarmJob}, 15, "app0/a0", "app2/b3")
	want(quipu.AlarmKey{Kind: quipu.AlarmJob, App: "app1"}, 5, "app1/a0", "app1/b3")
	want(quipu.AlarmKey{Kind: quipu.AlarmJob, App: "app1", Name: "b"}, 2, "app1/b1", "app1/b3")
	want(quipu.AlarmKey{Kind: quipu.AlarmReminder, ActorType: "T"}, 15, "0/r0", "2/r4")
	want(quipu.AlarmKey{Kind: quipu.AlarmReminder, ActorType: "T", ActorID: "1"}, 5, "1/r0", "1/r4")
	if n, err := w.CancelAlarms(ctx, quipu.AlarmKey{Kind: quipu.AlarmJob, App: "app1", Name: "a"}); n != 3 || err != nil {
		t.Errorf("cancelled %d, %v", n, err)
	}
	if n, err := w.CancelAlarms(ctx, quipu.AlarmKey{Kind: quipu.AlarmReminder, ActorType: "T", ActorID: "2"}); n != 5 || err != nil {
		t.Errorf("cancelled %d, %v", n, err)
	}
	want(quipu.AlarmKey{Kind: quipu.AlarmJob}, 12, "app0/a0", "app2/b3")
	want(quipu.AlarmKey{Kind: quipu.AlarmReminder}, 10, "0/r0", "1/r4")
}

// However many are cancelled at once, no record is large: they go by pages, in each of which all or none do. Inside a transaction they
// go together.
func TestManyAlarmsAreCancelledByPages(t *testing.T) {
	w := newWorld(t, delivered)
	many := quipu.AlarmKey{Kind: quipu.AlarmJob, App: "app", Name: "many"}
	fill := func() {
		t.Helper()
		for i := 0; i < 5000; i += 1000 {
			if _, err := w.World.Book.Change(t.Context(), func(tx *view.Tx) error {
				for j := range 1000 {
					if err := w.View.SetAlarm(tx, quipu.Alarm{AlarmKey: job(fmt.Sprintf("many%04d", i+j)), DueTime: "1h"}); err != nil {
						return err
					}
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.set(quipu.Alarm{AlarmKey: job("other"), DueTime: "1h"})
	left := func() (n int) {
		t.Helper()
		for after := ""; ; {
			list, next, err := w.ListAlarms(t.Context(), quipu.AlarmKey{Kind: quipu.AlarmJob, App: "app"}, after, 0)
			if err != nil {
				t.Fatal(err)
			}
			if n, after = n+len(list), next; next == "" {
				return n
			}
		}
	}
	fill()
	before := w.Tail()
	if n, err := w.CancelAlarms(t.Context(), many); n != 5000 || err != nil || left() != 1 {
		t.Errorf("cancelled %d, %v; %d are left", n, err, left())
	}
	if records := w.Tail() - before; records != 5 {
		t.Errorf("%d records", records)
	}

	fill()
	ctx, cancel := context.WithCancel(t.Context())
	pages := 0
	n, err := w.View.CancelInPages(ctx, many, func(page func(*view.Tx) error) error {
		if pages++; pages == 2 {
			cancel()
		}
		_, err := w.World.Book.Change(ctx, page)
		return err
	})
	if n != 2000 || !errors.Is(err, context.Canceled) || left() != 3001 {
		t.Errorf("cancelled %d before it broke off with %v; %d are left", n, err, left())
	}
	before = w.Tail()
	if _, err := w.World.Book.Change(t.Context(), func(tx *view.Tx) error { n, err = w.View.CancelAlarms(tx, many); return err }); n != 3000 || err != nil || left() != 1 || w.Tail() != before+1 {
		t.Errorf("in a transaction: cancelled %d, %v; %d are left, %d records", n, err, left(), w.Tail()-before)
	}
}

func TestAlarmsThatCannotBe(t *testing.T) {
	w := newWorld(t, delivered)
	three := 3
	minus := -1
	for name, a := range map[string]quipu.Alarm{
		"no time":           {},
		"no name":           {AlarmKey: quipu.AlarmKey{Kind: quipu.AlarmJob, App: "app"}, DueTime: "1s"},
		"a path":            {AlarmKey: job("a/b"), DueTime: "1s"},
		"two dots":          {AlarmKey: job(".."), DueTime: "1s"},
		"control":           {AlarmKey: job("a\n"), DueTime: "1s"},
		"no app":            {AlarmKey: quipu.AlarmKey{Kind: quipu.AlarmJob, Name: "a"}, DueTime: "1s"},
		"no actor":          {AlarmKey: quipu.AlarmKey{Kind: quipu.AlarmReminder, ActorType: "T", Name: "a"}, DueTime: "1s"},
		"kind":              {AlarmKey: quipu.AlarmKey{Kind: "x", App: "app", Name: "a"}, DueTime: "1s"},
		"cron":              {Schedule: "every now and then"},
		"never":             {Schedule: "0 0 0 31 2 *"},
		"too often":         {Schedule: "@every 0s"},
		"backwards":         {Schedule: "-1s"},
		"no repetitions":    {Schedule: "R0/PT1S"},
		"no period":         {Schedule: "R5"},
		"far":               {DueTime: "9999-01-01T00:00:00Z"},
		"far period":        {Schedule: "P999999Y"},
		"repeats":           {DueTime: "1s", Repeats: 2},
		"negative repeats":  {Schedule: "@daily", Repeats: -1},
		"ttl alone":         {DueTime: "1s", TTL: "1s"},
		"ttl first":         {Schedule: "@daily", DueTime: "2s", TTL: "2020-01-01T00:00:00Z"},
		"repeated due":      {DueTime: "R5/PT1S"},
		"due":               {DueTime: "tomorrow"},
		"data":              {DueTime: "1s", Data: make([]byte, quipu.AlarmDataMax+1)},
		"negative interval": {DueTime: "1s", Retry: quipu.AlarmRetry{Interval: -1, Max: &three}},
		"negative retries":  {DueTime: "1s", Retry: quipu.AlarmRetry{Max: &minus}},
	} {
		if a.Kind == "" {
			a.AlarmKey = job("a")
		}
		if err := w.SetAlarm(t.Context(), a); quipu.CodeOf(err) != quipu.CodeAlarm {
			t.Errorf("%s: %v", name, err)
		}
	}
	if list, _, err := w.ListAlarms(t.Context(), quipu.AlarmKey{Kind: quipu.AlarmJob}, "", 0); len(list) > 0 || err != nil {
		t.Errorf("%v are there, %v", list, err)
	}
	w.set(quipu.Alarm{AlarmKey: job("a"), DueTime: "1h"})
	if err := w.SetAlarm(t.Context(), quipu.Alarm{AlarmKey: job("a"), DueTime: "2h", Keep: true}); quipu.CodeOf(err) != quipu.CodeAlarmExists {
		t.Errorf("it was overwritten: %v", err)
	}
	if err := w.CancelAlarm(t.Context(), job("b")); quipu.CodeOf(err) != quipu.CodeNoAlarm {
		t.Errorf("cancelled what is not there: %v", err)
	}
}

// Each time of each job takes effect once, whatever crashes when.
func TestEachTimeOfAJobTakesEffectOnce(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 3))
	var flaky sync.Mutex
	calls := 0
	w := newWorld(t, func(w *world, a quipu.Alarm, settle func(*view.Tx) error) alarm.Outcome {
		flaky.Lock()
		calls++
		fail := calls%5 == 0
		flaky.Unlock()
		if fail {
			return alarm.Outcome{Fate: alarm.Failed, Cause: "now and then"}
		}
		return atomically(w, a, settle)
	})
	const jobs, repeats = 60, 4
	many := 1000
	for i := range jobs {
		w.set(quipu.Alarm{AlarmKey: job(fmt.Sprint(i)), Schedule: "@every 1m", DueTime: fmt.Sprint(rng.IntN(60), "s"), Repeats: repeats,
			Retry: quipu.AlarmRetry{Interval: quipu.Duration(time.Second), Max: &many}})
	}
	for range 12 {
		w.Clock.Move(time.Duration(rng.IntN(15)) * time.Second)
		w.Crash(rng)
	}
	w.Passing(500*time.Millisecond, "all are done", func() bool { return w.timers.Count("job") == 0 })
	done := map[string]int{}
	tx := w.World.Book.Look()
	defer tx.Close()
	if err := tx.Scan("effects", "", "", func(key string, _ []byte) bool { done[key[:len(key)-17]]++; return true }); err != nil {
		t.Fatal(err)
	}
	for i := range jobs {
		if n := done[fmt.Sprint(i)]; n != repeats {
			t.Errorf("job %d took effect %d times", i, n)
		}
	}
}

// What is appended for each time does not depend on what the alarm carries.
func TestADeliveryAppendsLittle(t *testing.T) {
	w := newWorld(t, delivered)
	w.set(quipu.Alarm{AlarmKey: job("a"), Schedule: "@every 1s", Data: make([]byte, quipu.AlarmDataMax)})
	from := w.World.Book.Applied()
	for i := range 10 {
		w.Clock.Move(time.Second)
		w.Eventually("a delivery", func() bool { a, err := w.Alarm(t.Context(), job("a")); return err == nil && a.Fired == i+1 })
	}
	records, bytes := 0, 0
	for rec, err := range w.Log.Range(t.Context(), w.ID, quipu.TagAll, from+1, w.World.Book.Applied()) {
		if err != nil {
			t.Fatal(err)
		}
		records, bytes = records+1, bytes+len(rec.Data)
	}
	if records != 10 || bytes/records > 400 {
		t.Errorf("%d records of %d bytes", records, bytes/max(1, records))
	}
	t.Logf("%d bytes for a delivery", bytes/records)
}

func TestAnAlarmInJSON(t *testing.T) {
	w := newWorld(t, delivered)
	w.set(quipu.Alarm{AlarmKey: job("a"), DueTime: "1h"})
	a, err := w.Alarm(t.Context(), job("a"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(a)
	want := `{"kind":"job","app":"app","name":"a","dueTime":"1h","retry":{},"created":"2026-03-01T12:00:00Z","next":"2026-03-01T13:00:00Z","fired":0,"attempts":0}`
	if err != nil || utc(t, b) != want {
		t.Errorf("%s, %v", b, err)
	}
}

// utc is the JSON of an alarm with its times in UTC.
func utc(t *testing.T, b []byte) string {
	t.Helper()
	var a quipu.Alarm
	if err := json.Unmarshal(b, &a); err != nil {
		t.Fatal(err)
	}
	a.Created, a.Next = a.Created.UTC(), a.Next.UTC()
	b, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
