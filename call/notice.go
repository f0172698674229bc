package call

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/cloudevent"
	"github.com/quipu-run/quipu/view"
)

// noticeBodyMax bounds each of the two bodies in a notice, so that both fit into an event however they are escaped.
const noticeBodyMax = 64 << 10

// notice is the data of the event that a destination gets.
type notice struct {
	Call     string          `json:"call"`
	Function string          `json:"function"`
	State    quipu.CallState `json:"state"`
	Status   int             `json:"status"`
	Attempts int             `json:"attempts"`
	Error    quipu.Code      `json:"error,omitempty"`
	Cause    string          `json:"cause,omitempty"`
	Queued   time.Time       `json:"queued"`
	Ended    time.Time       `json:"ended"`
	Request  noticeRequest   `json:"request"`
	Reply    *noticeBody     `json:"reply,omitempty"` // if the function answered
}

type noticeRequest struct {
	Method string `json:"method"`
	Path   string `json:"path"`
	Query  string `json:"query,omitempty"`
	noticeBody
}

// noticeBody is up to noticeBodyMax bytes of a body.
type noticeBody struct {
	ContentType string `json:"contentType,omitempty"`
	quipu.CallBody
}

func noticeBodyOf(header map[string][]string, body []byte) noticeBody {
	return noticeBody{http.Header(header).Get("Content-Type"), bodyUpTo(noticeBodyMax, body, int64(len(body)))}
}

// tell adds the event about the end of a call to its transaction. A destination that cannot take it does not keep the call
// from ending: the event goes to the dead-letter topic of a function, and if there is no room in that either, the result
// says so.
func (c *Caller) tell(tx *view.Tx, p *pending, e *ending) error {
	to, kind := p.Rules.OnFailure, cloudevent.TypeCallFailed
	switch e.info.State {
	case quipu.CallSucceeded:
		to, kind = p.Rules.OnSuccess, cloudevent.TypeCallSucceeded
	case quipu.CallCancelled: // who cancelled it knows
		return nil
	}
	if to == (quipu.Destination{}) {
		return nil
	}
	event, err := c.event(p, e, kind)
	if err != nil {
		return err
	}
	mark := tx.Mark()
	err = c.deliver(tx, p, to, event)
	if code := quipu.CodeOf(err); code != "" && code != quipu.CodeInternal {
		tx.Rollback(mark)
		e.info.Undelivered, err = code, nil
	}
	return err
}

// event is the event about the end of a call, under the call's id.
func (c *Caller) event(p *pending, e *ending, kind string) (quipu.Message, error) {
	now := c.o.Clock.Now()
	n := notice{Call: p.Info.ID, Function: p.Info.Function, State: e.info.State, Status: e.info.Status, Attempts: e.info.Attempts,
		Error: e.info.Error, Cause: e.info.Cause, Queued: p.Info.Queued, Ended: now,
		Request: noticeRequest{p.Info.Method, p.Info.Path, p.Query, noticeBodyOf(p.Header, p.body)}}
	if e.header != nil {
		body := noticeBodyOf(e.header, e.body)
		n.Reply = &body
	}
	data, err := json.Marshal(n)
	if err != nil {
		return quipu.Message{}, err
	}
	id, event, err := cloudevent.Wrap(cloudevent.Attributes{ID: p.Info.ID, Source: "/functions/" + p.Info.Function, Type: kind,
		Subject: p.Info.ID, Time: now, DataContentType: "application/json", TraceParent: http.Header(p.Header).Get("Traceparent")}, data)
	return quipu.Message{ID: id, ContentType: quipu.MediaCloudEvent, Data: event}, err
}

// deliver adds an event to the transaction: published, or as a call of a function.
func (c *Caller) deliver(tx *view.Tx, p *pending, to quipu.Destination, event quipu.Message) error {
	event.Topic = to.Topic
	if to.Function != "" {
		err := c.follow(tx, p, to.Function, event)
		switch quipu.CodeOf(err) {
		case quipu.CodeNoFunction, quipu.CodeCallQueue, quipu.CodeDepth:
			event.Topic = quipu.DeadLetterTopic(to.Function)
		default:
			return err
		}
	}
	return c.o.Topics.Publish(tx, []quipu.Message{event})
}

// triggerDestination is the trigger of a call that a destination makes.
const triggerDestination = "destination"

// follow adds a call of a function with an event about the end of another. CodeNoFunction, CodeCallQueue, CodeDepth.
func (c *Caller) follow(tx *view.Tx, p *pending, function string, event quipu.Message) error {
	r, id := quipu.CallRequest{Function: function, Method: http.MethodPost, Path: "/", Trigger: triggerDestination}, ulid.Make().String()
	f, err := c.o.Find(r, id)
	if err != nil {
		return err
	}
	if p.Hops+1 > quipu.CallDepthMax {
		return &quipu.Error{Code: quipu.CodeDepth, Op: "call.destination"}
	}
	q := c.newRequest(r, f, id, 1)
	next := &pending{Info: q.info, Header: http.Header{"Content-Type": {event.ContentType}}, Rules: f.AsyncRules(), Hops: p.Hops + 1, body: event.Data}
	if parent := http.Header(p.Header).Get(quipu.HeaderTraceparent); parent != "" {
		http.Header(next.Header).Set(quipu.HeaderTraceparent, parent)
	}
	next.Info.Queued, next.Info.Expires = q.start, q.start.Add(next.Rules.MaxAge.Std())
	_, err = c.enqueue(tx, next)
	return err
}
