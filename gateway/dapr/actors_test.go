package dapr

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/test/fake"
)

// cats is an application that hosts actors of type cat, of which tom lives in the instance that asks.
type cats struct {
	Actors
	timers []quipu.ActorTimer
}

func (c *cats) Hosts(actorType string) bool { return actorType == "cat" }

func (c *cats) Lease(k quipu.ActorKey) (l quipu.Lease, err error) {
	if k != (quipu.ActorKey{Type: "cat", ID: "tom"}) {
		err = &quipu.Error{Code: quipu.CodeNoActorHost}
	}
	return l, err
}

func (c *cats) SetTimer(t quipu.ActorTimer) error {
	if t.Period == "often" {
		return &quipu.Error{Code: quipu.CodeAlarm, Text: "the period"}
	}
	c.timers = append(c.timers, t)
	return nil
}

func (c *cats) CancelTimer(quipu.ActorKey, string)       {}
func (c *cats) Active() (counts map[string]int, ok bool) { return map[string]int{"cat": 2}, true }

func (c *cats) Turn(_ context.Context, a quipu.ActorCall, _ quipu.Invoker) (*quipu.CallReply, error) {
	r := &quipu.CallReply{Status: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("done " + a.Method))}
	switch a.Method {
	case "deep":
		return nil, &quipu.Error{Code: quipu.CodeActorDepth}
	case "nowhere":
		return nil, &quipu.Error{Code: quipu.CodeNoActorHost}
	case "late":
		return nil, &quipu.Error{Code: quipu.CodeTimeout}
	case "bad":
		r.Status = 500
	case "none":
		r.Status = 404
	case "actorerror":
		r.Header.Set("X-DaprErrorResponseHeader", "true")
	case "cancels":
		r.Header.Set("X-DaprReminderCancel", "true")
	}
	return r, nil
}

// memo keeps reminders in memory.
type memo struct {
	of map[quipu.AlarmKey]quipu.Alarm
}

func (m memo) SetAlarm(_ context.Context, a quipu.Alarm) error {
	if _, ok := m.of[a.AlarmKey]; ok && a.Keep {
		return &quipu.Error{Code: quipu.CodeAlarmExists}
	}
	if a.DueTime == "never" {
		return &quipu.Error{Code: quipu.CodeAlarm}
	}
	m.of[a.AlarmKey] = a
	return nil
}

func (m memo) CancelAlarm(_ context.Context, k quipu.AlarmKey) error {
	if _, ok := m.of[k]; !ok {
		return &quipu.Error{Code: quipu.CodeNoAlarm}
	}
	delete(m.of, k)
	return nil
}

func (m memo) CancelAlarms(context.Context, quipu.AlarmKey) (int, error) {
	return 0, errors.New("not here")
}

func (m memo) Alarm(_ context.Context, k quipu.AlarmKey) (quipu.Alarm, error) {
	a, ok := m.of[k]
	if !ok {
		return a, &quipu.Error{Code: quipu.CodeNoAlarm}
	}
	return a, nil
}

func (m memo) ListAlarms(context.Context, quipu.AlarmKey, string, int) ([]quipu.Alarm, string, error) {
	return nil, "", errors.New("not here")
}

// asked are requests about actors with what Dapr answers; the last is in the body.
var asked = []struct {
	request, body string
	status        int
	want          string
}{
	{"POST cat/tom/method/feed", "", 200, "done feed"},
	{"GET cat/tom/method/feed", "", 200, "done feed"},
	{"PATCH cat/tom/method/feed", "", 405, ""},
	{"PUT cat/tom/method/actorerror", "", 200, "done actorerror"},
	{"PUT cat/tom/method/bad", "", 500, `"ERR_ACTOR_INVOKE_METHOD","message":"error invoke actor method: error from actor service: (500) done bad"`},
	{"PUT cat/tom/method/none", "", 500, `error invoke actor method: actor method not found: actors/cat/tom/method/none`},
	{"PUT cat/tom/method/cancels", "", 500, `error invoke actor method: reminder has been canceled`},
	{"PUT cat/tom/method/deep", "", 500, `{"errorCode":"ERR_ACTOR_STACK_DEPTH","message":"maximum stack depth exceeded"}`},
	{"PUT cat/tom/method/nowhere", "", 500, `"ERR_ACTOR_INVOKE_METHOD","message":"error invoke actor method: failed to lookup actor: did not find address for actor 'cat||tom'"`},
	{"PUT cat/tom/method/late", "", 500, `"ERR_ACTOR_INVOKE_METHOD"`},
	{"PUT cat/to%23m/method/feed", "", 400, `invalid actorId: name contains forbidden character`},
	{"PUT cat/tom/method/a%2F..%2F..%2Fb", "", 200, "done b"},
	{"PUT cat/tom/method/feed%3Fx", "", 400, `"ERR_BAD_REQUEST"`},

	{"POST cat/tom/state", `[{"operation":"upsert","request":{"key":"k","value":{"a":1}}},{"operation":"delete","request":{"key":"x"}}]`, 204, ""},
	{"GET cat/tom/state/k", "", 200, `{"a":1}`},
	{"GET cat/tom/state/none", "", 204, ""},
	{"GET cat/kit/state/k", "", 204, ""},
	{"PUT cat/kit/state", `[{"operation":"delete","request":{"key":"k"}}]`, 400, `{"errorCode":"ERR_ACTOR_INSTANCE_MISSING","message":"actor instance is missing"}`},
	{"POST cat/tom/state", `{`, 400, `"ERR_MALFORMED_REQUEST"`},
	{"POST cat/tom/state", `[{"operation":"upsert","request":{"value":1}}]`, 500, `"ERR_ACTOR_STATE_TRANSACTION_SAVE","message":"error saving actor transaction state: missing key"`},
	{"POST cat/tom/state", `[{"operation":"move","request":{"key":"k"}}]`, 500, `operation type move not supported`},
	{"POST cat/tom/state", `[{"operation":"upsert"}]`, 500, `request data is empty`},
	{"POST dapr.internal.x/tom/state", `[]`, 403, `"ERR_ACTOR_TYPE_RESERVED"`},
	{"GET dapr.internal.x/tom/state/k", "", 403, `"ERR_ACTOR_TYPE_RESERVED"`},

	{"POST cat/tom/timers/t", `{"dueTime":"1s","period":"R2/PT1S","callback":"cb","data":{"a":1}}`, 204, ""},
	{"PUT cat/tom/timers/t", `{"period":"often"}`, 500, `"ERR_ACTOR_TIMER_CREATE","message":"error creating actor timer: `},
	{"PUT dog/rex/timers/t", `{}`, 500, `can't create timer for actor dog||rex: actor type not registered`},
	{"PUT cat/tom/timers/t", `x`, 400, `"ERR_MALFORMED_REQUEST"`},
	{"DELETE cat/tom/timers/t", "", 204, ""},
	{"GET cat/tom/timers/t", "", 405, ""},

	{"POST cat/tom/reminders/r", `{"dueTime":"1s","period":"R5/PT10S","data":"fish"}`, 204, ""},
	{"GET cat/tom/reminders/r", "", 200, `{"actorID":"tom","actorType":"cat","data":"fish","dueTime":"1s","period":"@every 10s"}`},
	{"POST cat/tom/reminders/r", `{"dueTime":"1s","overwrite":false}`, 409, `"ERR_ACTOR_REMINDER_ALREADY_EXISTS","message":"actor reminder already exists: r"`},
	{"POST cat/tom/reminders/p", `{"period":"P1M"}`, 500, `"ERR_ACTOR_REMINDER_CREATE","message":"error creating actor reminder: unsupported period format: P1M"`},
	{"POST cat/tom/reminders/p", `{"dueTime":"never"}`, 500, `"ERR_ACTOR_REMINDER_CREATE"`},
	{"GET cat/tom/reminders/none", "", 404, `{"errorCode":"ERR_ACTOR_REMINDER_NOT_FOUND","message":"actor reminder not found: none"}`},
	{"DELETE cat/tom/reminders/r", "", 204, ""},
	{"DELETE cat/tom/reminders/r", "", 204, ""},
	{"POST dog/rex/reminders/r", `{}`, 403, `{"errorCode":"ERR_ACTOR_REMINDER_NON_HOSTED","message":"operations on actor reminders are only possible on hosted actor types"}`},
	{"GET dog/rex/reminders/r", "", 403, `"ERR_ACTOR_REMINDER_NON_HOSTED"`},
	{"POST dapr.internal.x/tom/reminders/r", `{}`, 403, `"ERR_ACTOR_TYPE_RESERVED"`},
}

// Statuses, codes and bodies of what has to do with actors are Dapr's.
func TestActorsAnswerAsDaprDoes(t *testing.T) {
	n, host := fake.New(), &cats{}
	n.Alarms = memo{map[quipu.AlarmKey]quipu.Alarm{}}
	d := New(Options{Session: func(*http.Request) (quipu.Session, error) { return n.Session("zoo"), nil }, Actors: func(*http.Request) Actors { return host }})
	defer d.Close()
	for _, c := range asked {
		method, path, _ := strings.Cut(c.request, " ")
		r := httptest.NewRequest(method, "http://127.0.0.1/v1.0/actors/"+path, bytes.NewReader([]byte(c.body)))
		w := httptest.NewRecorder()
		d.ServeHTTP(w, r)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.want) || c.status == 204 && w.Body.Len() > 0 {
			t.Errorf("%s %s: %d %s, want %d %s", c.request, c.body, w.Code, w.Body, c.status, c.want)
		}
	}
	if len(host.timers) != 1 || string(host.timers[0].Data) != `{"a":1}` || host.timers[0].Callback != "cb" {
		t.Errorf("%+v", host.timers)
	}
	w := httptest.NewRecorder()
	d.ServeHTTP(w, httptest.NewRequest("GET", "http://127.0.0.1/v1.0/metadata", nil))
	if want := `"actorRuntime":{"runtimeStatus":"RUNNING","activeActors":[{"type":"cat","count":2}],"hostReady":true,"placement":"placement: connected"}`; !strings.Contains(w.Body.String(), want) {
		t.Errorf("%s", w.Body)
	}
}
