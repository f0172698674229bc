package dapr

import (
	"encoding/json"
	"net/http"
	"strings"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/gateway"
	"google.golang.org/protobuf/encoding/protojson"
)

// isActors tells whether a path below v1.0 is one of actors: actors/TYPE/ID/state, state/KEY, method/NAME, reminders/NAME, timers/NAME.
func isActors(parts []string) bool {
	if len(parts) < 5 || parts[2] == "" || parts[3] == "" {
		return false
	}
	switch parts[4] {
	case "state":
		return len(parts) == 5 || len(parts) == 6 && parts[5] != ""
	case "method", "reminders", "timers":
		return len(parts) == 6 && parts[5] != ""
	}
	return false
}

// actors serves what isActors tells. parts are those of the whole path.
func (d *Door) actors(w http.ResponseWriter, r *http.Request, parts []string) {
	k, name := quipu.ActorKey{Type: unescape(parts[2]), ID: unescape(parts[3])}, ""
	if len(parts) == 6 {
		name = unescape(parts[5])
	}
	write := r.Method == http.MethodPost || r.Method == http.MethodPut
	a := &actorAsk{d: d, w: w, r: r, key: k, name: name}
	switch what := parts[4]; {
	case what == "method":
		if allow(w, r, http.MethodGet, http.MethodPost, http.MethodDelete, http.MethodPut) {
			a.answer(tagActorInvoke, a.invoke)
		}
	case what == "state" && name == "":
		if allow(w, r, http.MethodPost, http.MethodPut) {
			a.answer(tagActorSave, a.transact)
		}
	case what == "state":
		if allow(w, r, http.MethodGet) {
			a.answer(tagActorState, a.getState)
		}
	case what == "timers" && write:
		a.answer(tagActorTimer, a.setTimer)
	case what == "timers":
		if allow(w, r, http.MethodPost, http.MethodPut, http.MethodDelete) {
			a.answer(tagActorTimer, a.cancelTimer)
		}
	case write:
		a.answer(tagReminderSet, a.setReminder)
	case r.Method == http.MethodDelete:
		a.answer(tagReminderDelete, a.dropReminder)
	case allow(w, r, http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete):
		a.answer(tagReminderGet, a.getReminder)
	}
}

// actorAsk is one request about an actor over HTTP.
type actorAsk struct {
	d    *Door
	w    http.ResponseWriter
	r    *http.Request
	key  quipu.ActorKey
	name string
}

// answer does what is asked; what writes nothing is answered with 204.
func (a *actorAsk) answer(tag string, do func() (wrote bool, err error)) {
	wrote, err := do()
	switch {
	case err != nil:
		a.d.fail(a.w, a.r, tag, err)
	case !wrote:
		a.w.WriteHeader(http.StatusNoContent)
	}
}

// read decodes the body.
func (a *actorAsk) read(v any) error {
	defer a.d.bound(a.w, a.r)()
	if err := json.NewDecoder(a.r.Body).Decode(v); err != nil {
		return malformed(err)
	}
	return nil
}

func (a *actorAsk) invoke() (bool, error) {
	for _, part := range []struct{ what, text string }{{"actorType", a.key.Type}, {"actorId", a.key.ID}} {
		if err := checkName(part.text); err != nil {
			return false, badRequest("invalid %s: %v", part.what, err)
		}
	}
	method, err := actorMethod(a.name)
	if err != nil {
		return false, badRequest("%v", err)
	}
	body, err := gateway.LimitBody(a.r, a.d.opt.BodyBytesMax)
	if err != nil {
		return false, err
	}
	c := gateway.CallOf(a.r, "", "", "dapr")
	c.Body = body
	reply, err := a.d.askActor(a.r, quipu.ActorCall{ActorKey: a.key, Method: method, CallRequest: c})
	if err != nil {
		return false, err
	}
	gateway.WriteReply(a.w, reply)
	return true, nil
}

func (a *actorAsk) getState() (bool, error) {
	s, err := a.d.openActors(a.r, a.key, tagActorState)
	if err != nil {
		return false, err
	}
	item, err := s.getActor(a.name)
	if err != nil || !item.Exists() || len(item.Value) == 0 {
		return false, err
	}
	h := a.w.Header()
	h.Set("Content-Type", "application/json")
	for name, value := range metadataOf(item) {
		h.Set("metadata."+name, value)
	}
	_, _ = a.w.Write(item.Value) // a client that left has nobody to tell
	return true, nil
}

func (a *actorAsk) transact() (bool, error) {
	if err := notReserved(a.key.Type); err != nil {
		return false, err
	}
	var all []actorChange
	if err := a.read(&all); err != nil {
		return false, err
	}
	s, err := a.d.openActors(a.r, a.key, tagActorSave)
	if err != nil {
		return false, err
	}
	changes := make([]quipu.Change, len(all))
	for i, one := range all {
		if changes[i], err = one.change(); err != nil {
			return false, failedSave(err)
		}
	}
	return false, s.saveActor(changes)
}

func (a *actorAsk) setTimer() (bool, error) {
	var in struct {
		Data     json.RawMessage `json:"data"`
		DueTime  string          `json:"dueTime"`
		Period   string          `json:"period"`
		TTL      string          `json:"ttl"`
		Callback string          `json:"callback"`
	}
	if err := notReserved(a.key.Type); err != nil {
		return false, err
	}
	if err := a.read(&in); err != nil {
		return false, err
	}
	return false, a.d.setTimer(a.r, quipu.ActorTimer{ActorKey: a.key, Name: a.name, DueTime: in.DueTime, Period: in.Period, TTL: in.TTL, Callback: in.Callback, Data: in.Data})
}

func (a *actorAsk) cancelTimer() (bool, error) {
	return false, a.d.cancelTimer(a.r, a.key, a.name)
}

func (a *actorAsk) alarm() quipu.AlarmKey { return reminderKey(a.key.Type, a.key.ID, a.name) }

func reminderKey(actorType, id, name string) quipu.AlarmKey {
	return quipu.AlarmKey{Kind: quipu.AlarmReminder, ActorType: actorType, ActorID: id, Name: name}
}

func (a *actorAsk) setReminder() (bool, error) {
	var in struct {
		Data      json.RawMessage `json:"data"`
		DueTime   string          `json:"dueTime"`
		Period    string          `json:"period"`
		TTL       string          `json:"ttl"`
		Overwrite *bool           `json:"overwrite"`
		Policy    json.RawMessage `json:"failure_policy"`
	}
	if err := notReserved(a.key.Type); err != nil {
		return false, err
	}
	if err := a.read(&in); err != nil {
		return false, err
	}
	retry, err := retryIn(in.Policy)
	if err != nil {
		return false, malformed(err)
	}
	return false, a.d.setReminder(a.r, reminder{AlarmKey: a.alarm(), due: in.DueTime, period: in.Period, ttl: in.TTL, data: in.Data,
		keep: in.Overwrite != nil && !*in.Overwrite, retry: retry})
}

// retryIn is a failure policy in JSON.
func retryIn(text json.RawMessage) (quipu.AlarmRetry, error) {
	if len(text) == 0 || strings.TrimSpace(string(text)) == "null" {
		return quipu.AlarmRetry{}, nil
	}
	var p commonv1.JobFailurePolicy
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, &p); err != nil {
		return quipu.AlarmRetry{}, err
	}
	return retryOf(&p), nil
}

func (a *actorAsk) dropReminder() (bool, error) {
	return false, a.d.dropReminder(a.r, a.alarm())
}

func (a *actorAsk) getReminder() (bool, error) {
	found, err := a.d.reminder(a.r, a.alarm())
	if err != nil {
		return false, err
	}
	out := struct {
		ActorID   string          `json:"actorID,omitempty"`
		ActorType string          `json:"actorType,omitempty"`
		Data      json.RawMessage `json:"data,omitempty"`
		DueTime   string          `json:"dueTime,omitempty"`
		Period    string          `json:"period,omitempty"`
		TTL       string          `json:"ttl,omitempty"`
	}{found.ActorID, found.ActorType, found.Data, found.DueTime, found.Schedule, expiryOfAlarm(found)}
	answerWith(a.w, http.StatusOK, out)
	return true, nil
}
