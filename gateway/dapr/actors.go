package dapr

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/component"
	"github.com/quipu-run/quipu/internal/mapping"
	"google.golang.org/grpc/codes"
)

// Actors is what the door of an application needs of those who run actors.
type Actors interface {
	// Hosts tells whether the application hosts a type.
	Hosts(actorType string) bool
	// Turn has an actor answer, in a turn; via makes the call.
	Turn(ctx context.Context, c quipu.ActorCall, via quipu.Invoker) (*quipu.CallReply, error)
	// Lease is that of an actor which lives in the instance whose door this is. CodeNoActorHost.
	Lease(k quipu.ActorKey) (quipu.Lease, error)
	SetTimer(t quipu.ActorTimer) error
	CancelTimer(k quipu.ActorKey, name string)
	// Active counts the actors that live in the instance by each type that it hosts; ok is false if it hosts none.
	Active() (counts map[string]int, ok bool)
	// Serve has the instance host types by a stream until leave is called, which returns when no actor lives there any more. do asks
	// the instance.
	Serve(types []quipu.ActorType, do func(*http.Request) (*http.Response, error)) (leave func(), err error)
}

// noActors is for who hosts none.
type noActors struct{ Actors }

func (noActors) Hosts(string) bool                               { return false }
func (noActors) Lease(quipu.ActorKey) (l quipu.Lease, err error) { return l, errNoActors }
func (noActors) Active() (map[string]int, bool)                  { return nil, false }
func (noActors) SetTimer(quipu.ActorTimer) error                 { return errNoActors }
func (noActors) CancelTimer(quipu.ActorKey, string)              {}
func (noActors) Turn(context.Context, quipu.ActorCall, quipu.Invoker) (*quipu.CallReply, error) {
	return nil, errNoActors
}
func (noActors) Serve([]quipu.ActorType, func(*http.Request) (*http.Response, error)) (func(), error) {
	return nil, errNoActors
}

var errNoActors = &quipu.Error{Code: quipu.CodeNoActorHost, Op: "actor.call", Hint: quipu.Codes[quipu.CodeNoActorHost].Next}

func (d *Door) actorsOf(r *http.Request) Actors {
	if d.opt.Actors != nil {
		if a := d.opt.Actors(r); a != nil {
			return a
		}
	}
	return noActors{}
}

// Tags and prefixes of errors, all of them Dapr's.
const (
	tagActorInvoke = "ERR_ACTOR_INVOKE_METHOD"
	tagActorState  = "ERR_ACTOR_STATE_GET"
	tagActorSave   = "ERR_ACTOR_STATE_TRANSACTION_SAVE"
	tagActorTimer  = "ERR_ACTOR_TIMER_CREATE"

	textActorInvoke = "error invoke actor method: "
	textActorState  = "error getting actor state: "
	textActorSave   = "error saving actor transaction state: "
	textActorTimer  = "error creating actor timer: "
)

// reservedActors starts the types that Dapr keeps for its workflows.
const reservedActors = "dapr.internal."

// notReserved refuses those types.
func notReserved(actorType string) error {
	if !strings.HasPrefix(actorType, reservedActors) {
		return nil
	}
	return &problem{status: http.StatusForbidden, tag: "ERR_ACTOR_TYPE_RESERVED",
		message: fmt.Sprintf("actor type %q is reserved for the Dapr workflow runtime; direct actor API access is not permitted", actorType)}
}

// checkName refuses what cannot be a segment of a path.
func checkName(name string) error {
	switch {
	case strings.ContainsAny(name, "#?\x00/\\"):
		return fmt.Errorf("name contains forbidden character: %q", name)
	case strings.ContainsFunc(name, func(c rune) bool { return c < 0x20 || c == 0x7f }):
		return fmt.Errorf("name contains control character at position %d: %q", strings.IndexFunc(name, func(c rune) bool { return c < 0x20 || c == 0x7f }), name)
	case name == "." || name == "..":
		return fmt.Errorf("name is a path traversal sequence: %q", name)
	}
	return nil
}

// actorMethod cleans the name of a method as Dapr does: what is left has no dots that lead elsewhere.
func actorMethod(method string) (string, error) {
	if strings.ContainsAny(method, "#?\x00") {
		return "", fmt.Errorf("method contains forbidden character: %q", method)
	}
	if i := strings.IndexFunc(method, func(c rune) bool { return c < 0x20 || c == 0x7f }); i >= 0 {
		return "", fmt.Errorf("method contains control character at position %d: %q", i, method)
	}
	clean := strings.TrimPrefix(path.Clean("/"+method), "/")
	return (&url.URL{Path: clean}).EscapedPath(), nil
}

func badRequest(format string, args ...any) *problem {
	return &problem{status: http.StatusBadRequest, tag: "ERR_BAD_REQUEST", message: fmt.Sprintf("invalid request: "+format, args...)}
}

// askActor has an actor answer: only what Dapr takes for a success comes without an error.
func (d *Door) askActor(r *http.Request, c quipu.ActorCall) (*quipu.CallReply, error) {
	session, err := d.opt.Session(r)
	if err != nil {
		return nil, d.actorProblem(r, c.ActorKey, err)
	}
	reply, err := d.actorsOf(r).Turn(r.Context(), c, session)
	if err != nil {
		return nil, d.actorProblem(r, c.ActorKey, err)
	}
	_, failed := reply.Header[actorError]
	switch {
	case reply.Status == http.StatusNotFound:
		err = fmt.Errorf("actor method not found: actors/%s/%s/method/%s", c.Type, c.ID, c.Method)
	case reply.Status != http.StatusOK:
		body, _ := io.ReadAll(reply.Body) // it is whole
		err = fmt.Errorf("error from actor service: (%d) %s", reply.Status, body)
	case !failed && isYes(reply.Header.Get(actorCancel)):
		err = errors.New("reminder has been canceled")
	default:
		return reply, nil
	}
	return nil, &problem{status: http.StatusInternalServerError, tag: tagActorInvoke, message: textActorInvoke + err.Error()}
}

// Headers by which applications answer more than a status.
const (
	actorError  = "X-Daprerrorresponseheader"
	actorCancel = "X-Daprremindercancel"
)

func isYes(text string) bool {
	return slices.Contains([]string{"y", "yes", "true", "t", "on", "1"}, strings.ToLower(strings.TrimSpace(text)))
}

// actorProblem says 500, as Dapr does for all that goes wrong on the way to an actor.
func (d *Door) actorProblem(r *http.Request, k quipu.ActorKey, err error) *problem {
	switch quipu.CodeOf(err) {
	case quipu.CodeActorDepth:
		return &problem{status: http.StatusInternalServerError, code: codes.ResourceExhausted, tag: "ERR_ACTOR_STACK_DEPTH", message: "maximum stack depth exceeded"}
	case quipu.CodeNoActorHost:
		return &problem{status: http.StatusInternalServerError, code: codes.FailedPrecondition, tag: tagActorInvoke,
			message: fmt.Sprintf("%sfailed to lookup actor: did not find address for actor '%s||%s'", textActorInvoke, k.Type, k.ID)}
	}
	p := d.problem(r, tagActorInvoke, textActorInvoke, err)
	p.reason = "" // Dapr gives none
	switch quipu.CodeOf(err) {
	case quipu.CodeNoFunction, quipu.CodeStart, quipu.CodeTimeout, quipu.CodeCrashed, quipu.CodeReply, quipu.CodeReplySize, quipu.CodeStreaming, quipu.CodeUnhealthy, quipu.CodeBreakerOpen:
		p.status = http.StatusInternalServerError
	}
	return p
}

// actorStore is where the actors of an application have their state.
type actorStore struct {
	*stateStore
	key quipu.ActorKey
}

// openActors finds the store of an actor: the component that says that it is the one, or the store that every namespace has.
func (d *Door) openActors(r *http.Request, k quipu.ActorKey, tag string) (*actorStore, error) {
	if err := notReserved(k.Type); err != nil {
		return nil, err
	}
	if k.Type == "" || k.ID == "" || len(k.Type) > quipu.ActorTypeMax || len(k.ID) > quipu.ActorIDMax || strings.Contains(k.Type+k.ID, "||") {
		return nil, badRequest("actor type %.80q with id %.80q", k.Type, k.ID)
	}
	set, err := d.set(r)
	if err != nil {
		return nil, d.problem(r, tag, "", err)
	}
	name := quipu.StoreDefault
	for _, c := range set.All() {
		if _, ok := c.Is.(component.State); ok && mapping.ActorStore(c.Spec) {
			name = c.Name
			break
		}
	}
	s, err := d.open(r, name, tag)
	if err != nil {
		return nil, err
	}
	if s.foreign && s.features != nil && !(slices.Contains(s.features, "TRANSACTIONAL") && slices.Contains(s.features, "ETAG")) {
		return nil, &problem{status: http.StatusInternalServerError, tag: "ERR_ACTOR_RUNTIME_NOT_FOUND",
			message: fmt.Sprintf("state store %s has no transactions, or no etags, which actors need", name)}
	}
	if !s.foreign {
		s.store = quipu.StoreActors + ":" + name + ":" + s.session.Function() + "||" + k.Type + "||" + k.ID
	}
	return &actorStore{s, k}, nil
}

// named is a key as the store has it.
func (s *actorStore) named(key string) string {
	if !s.foreign {
		return key
	}
	return strings.Join([]string{s.session.Function(), s.stateKey(), key}, "||")
}

func (s *actorStore) stateKey() string { return s.key.Type + "||" + s.key.ID }

// getActor reads a key. One that is not there has no value.
func (s *actorStore) getActor(key string) (quipu.Item, error) {
	items, err := s.state.Get(s.r.Context(), s.store, s.named(key))
	if err != nil {
		return quipu.Item{}, s.problem(tagActorState, textActorState, err)
	}
	return items[0], nil
}

// actorChange is one operation of a transaction.
type actorChange struct {
	Operation string          `json:"operation"`
	Request   json.RawMessage `json:"request"`
}

// change is what an operation asks for.
func (c actorChange) change() (out quipu.Change, err error) {
	var in change
	switch {
	case len(c.Request) == 0 || string(c.Request) == "null":
		return out, errors.New("request data is empty")
	case c.Operation == "":
		return out, errors.New("operation is empty")
	case c.Operation != "upsert" && c.Operation != "delete":
		return out, fmt.Errorf("operation type %.40s not supported", c.Operation)
	}
	if err := json.Unmarshal(c.Request, &in); err != nil {
		return out, err
	}
	if in.Key == "" {
		return out, errors.New("missing key")
	}
	in.remove = c.Operation == "delete"
	return in.parse(nil)
}

// saveActor makes changes of the state of an actor, all or none. The actor must live in the instance that asks, also when they are
// committed.
func (s *actorStore) saveActor(changes []quipu.Change) error {
	lease, err := s.d.actorsOf(s.r).Lease(s.key)
	if err != nil {
		return &problem{status: http.StatusBadRequest, code: codes.Internal, tag: "ERR_ACTOR_INSTANCE_MISSING", message: "actor instance is missing"}
	}
	if len(changes) == 0 {
		return nil
	}
	for i := range changes {
		changes[i].Key = s.named(changes[i].Key)
	}
	if s.foreign {
		err = s.state.Apply(s.r.Context(), s.store, changes)
	} else {
		err = s.session.Together(s.r.Context(), func(g quipu.Group) error {
			return errors.Join(g.Holds(lease), g.Apply(s.r.Context(), s.store, changes))
		})
	}
	if err != nil {
		return s.problem(tagActorSave, textActorSave, err)
	}
	return nil
}

// failedSave is a transaction that cannot be understood.
func failedSave(err error) error {
	if p := (*problem)(nil); errors.As(err, &p) {
		return err
	}
	status := http.StatusInternalServerError
	if e := (*quipu.Error)(nil); errors.As(err, &e) {
		status, err = quipu.Codes[e.Code].Status, errors.New(text(e.Text, e.Code))
	}
	return &problem{status: status, tag: tagActorSave, message: textActorSave + err.Error()}
}

// setTimer makes a timer of an actor that the application hosts.
func (d *Door) setTimer(r *http.Request, t quipu.ActorTimer) error {
	if err := notReserved(t.Type); err != nil {
		return err
	}
	if err := checkName(t.Name); err != nil {
		return badRequest("%v", err)
	}
	actors := d.actorsOf(r)
	fail := func(status int, text string) error {
		return &problem{status: status, code: codes.Internal, tag: tagActorTimer, message: textActorTimer + text}
	}
	if !actors.Hosts(t.Type) {
		return fail(http.StatusInternalServerError, fmt.Sprintf("can't create timer for actor %s||%s: actor type not registered", t.Type, t.ID))
	}
	if len(t.Data) > quipu.AlarmDataMax {
		return fail(http.StatusRequestEntityTooLarge, fmt.Sprintf("the data has more than %d bytes", quipu.AlarmDataMax))
	}
	if err := actors.SetTimer(t); err != nil {
		e := quipu.AsError(err)
		status := quipu.Codes[e.Code].Status
		if e.Code == quipu.CodeAlarm { // what Dapr says, too
			status = http.StatusInternalServerError
		}
		return fail(status, text(e.Text, e.Code))
	}
	return nil
}

func (d *Door) cancelTimer(r *http.Request, k quipu.ActorKey, name string) error {
	if err := notReserved(k.Type); err != nil {
		return err
	}
	if actors := d.actorsOf(r); actors.Hosts(k.Type) {
		actors.CancelTimer(k, name)
	}
	return nil
}
