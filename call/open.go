package call

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/trace"
	"github.com/quipu-run/quipu/view"
)

// openCall is a call that an instance is handling.
type openCall struct {
	id      string
	attempt int // of a call that nobody waits for; 0 and 1 are the first
	f       quipu.Function
	depth   int
	ctx     context.Context // ends with the run
	tx      *view.Tx        // nil for a plain function
	made    atomic.Int32    // calls made from this one
	cause   string          // that effects are named after
	effects atomic.Int32
	caused  atomic.Int32 // calls made from this one, in this run

	traceparent string      // that the function got, "" if none
	span        *trace.Span // of the function; nil if it is not recorded

	nested sync.Mutex            // one call joins at a time, since savepoints nest
	joined []quipu.FunctionUsage // guarded by nested: what those took

	mu     sync.RWMutex // held for reading by operations, so that none is half in when the call closes
	closed bool
}

func (o *openCall) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
}

// nextID names a call made from this one: the same in each run, if the function does the same, and others in another
// attempt.
func (o *openCall) nextID() string {
	if o.attempt > 1 {
		return fmt.Sprintf("%s/%d.%d", o.id, o.attempt, o.made.Add(1))
	}
	return fmt.Sprintf("%s/%d", o.id, o.made.Add(1))
}

// nextCause is what a call made from this one is made for, and so what its effects are named after: the same in another attempt, too, which
// has another id.
func (o *openCall) nextCause() string { return fmt.Sprintf("%s/%d", o.cause, o.caused.Add(1)) }

// nextEffect names an effect outside of the platform.
func (o *openCall) nextEffect() string { return fmt.Sprintf("%s/%d", o.cause, o.effects.Add(1)) }

// cause is what a call is made for, whatever attempt it is.
func (q *request) cause() string {
	switch {
	case q.IdempotencyKey != "":
		return q.f.Name + "/" + q.IdempotencyKey
	case q.Cause != "":
		return q.f.Name + "/" + q.Cause
	}
	return q.id
}

// during runs an operation unless the call has closed.
func (o *openCall) during(do func() error) error {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if o.closed {
		return noCall(o.f.Name)
	}
	return do()
}

func noCall(function string) error {
	return &quipu.Error{Code: quipu.CodeNoCall, Op: "call.session",
		Text: fmt.Sprintf("function %s is atomic and has no such open call", function), Hint: quipu.Codes[quipu.CodeNoCall].Next}
}

// openCalls are the calls that instances are handling.
type openCalls struct {
	mu sync.Mutex
	of map[string]map[string]*openCall // by instance and call id
}

func (s *openCalls) enter(instance string, o *openCall) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of[instance] == nil {
		s.of[instance] = map[string]*openCall{}
	}
	s.of[instance][o.id] = o
}

func (s *openCalls) leave(instance string, o *openCall) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.of[instance], o.id)
	if len(s.of[instance]) == 0 {
		delete(s.of, instance)
	}
}

// find is the call that an operation of an instance belongs to: the named one, or the only one. Of calls that joined one another it is
// the innermost, since the others wait for it.
func (s *openCalls) find(instance, id string) *openCall {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := s.of[instance]
	if id != "" {
		return calls[id]
	}
	return innermost(calls)
}

// innermost is nil unless all calls are of one transaction, or there is only one.
func innermost(calls map[string]*openCall) (deepest *openCall) {
	for _, o := range calls {
		switch {
		case deepest == nil:
			deepest = o
		case o.tx == nil || o.tx != deepest.tx:
			return nil
		case o.depth > deepest.depth:
			deepest = o
		}
	}
	return deepest
}

// Current is the id of the one call that an instance is handling, "" if there is none or several.
func (c *Caller) Current(instance string) string {
	if o := c.open.find(instance, ""); o != nil {
		return o.id
	}
	return ""
}

// Session is where operations of an instance of f belong. id is the call that they name, or "". CodeNoCall
// for an atomic function that has no such call open.
//
// Without a name they are taken for those of the only call that is open. In an instance that takes many calls that may be wrong, since they
// may come from anywhere in the application: calls that come one after another then look like a chain, and nobody is refused for it.
func (c *Caller) Session(f quipu.Function, instance, id string) (quipu.Session, error) {
	s, _, err := c.session(f, instance, id)
	return s, err
}

func (c *Caller) session(f quipu.Function, instance, id string) (quipu.Session, *openCall, error) {
	o := c.open.find(instance, id)
	switch {
	case f.Spec.Atomic && o == nil:
		return nil, nil, noCall(f.Name)
	case o != nil && o.tx != nil:
		return &inCall{c: c, o: o}, o, nil
	}
	return &outside{State: c.o.Plain(f.Name), Publisher: c.o.Publish, c: c, function: f.Name, payer: f.Name, o: o, guessed: id == "" && f.Spec.Concurrency > 1}, o, nil
}

// Outside is the session of a client that is no instance; function prefixes its keys.
func (c *Caller) Outside(function string) quipu.Session {
	return &outside{State: c.o.Plain(function), Publisher: c.o.Publish, c: c, function: function}
}

// outside is a session whose operations are commits of their own.
type outside struct {
	quipu.State
	quipu.Publisher
	c        *Caller
	function string
	payer    string    // the function whose record it is; "" is the namespace
	o        *openCall // the plain call it belongs to, if known
	guessed  bool      // that it does
}

func (s *outside) Function() string { return s.function }

// EffectID is of the call that the operation belongs to, if that is known.
func (s *outside) EffectID() string {
	if s.o == nil {
		return ""
	}
	return s.o.nextEffect()
}

// Apply is a record of its own.
func (s *outside) Apply(ctx context.Context, store string, changes []quipu.Change) error {
	err := s.State.Apply(ctx, store, changes)
	if len(changes) == 0 {
		return err
	}
	return s.c.appended(s.payer, err)
}

// Publish is a record of its own.
func (s *outside) Publish(ctx context.Context, ms []quipu.Message) error {
	err := s.Publisher.Publish(ctx, ms)
	if len(ms) == 0 {
		return err
	}
	return s.c.appended(s.payer, err)
}

// Cancel is a record of its own.
func (s *outside) Cancel(ctx context.Context, topic, id string) error {
	return s.c.appended(s.payer, s.Publisher.Cancel(ctx, topic, id))
}

// Invoke calls a function, one deeper than the call it comes from. A guess by which that is too deep was wrong.
func (s *outside) Invoke(ctx context.Context, r quipu.CallRequest) (*quipu.CallReply, error) {
	if s.o == nil || s.guessed && s.o.depth == quipu.CallDepthMax {
		return s.c.Invoke(ctx, r)
	}
	r.Cause = s.o.nextCause()
	return s.c.invoke(ctx, r, s.o.nextID(), s.o.depth+1)
}

// InvokeAsync accepts a call at once.
func (s *outside) InvokeAsync(ctx context.Context, r quipu.CallRequest) (quipu.CallInfo, error) {
	return s.c.InvokeAsync(ctx, r)
}

// inCall is a session inside an atomic call.
type inCall struct {
	c *Caller
	o *openCall
}

func (s *inCall) Function() string { return s.o.f.Name }

// EffectID is the call's.
func (s *inCall) EffectID() string { return s.o.nextEffect() }

func (s *inCall) Get(_ context.Context, store string, keys ...string) (items []quipu.Item, err error) {
	err = s.o.during(func() error {
		items, err = s.c.o.States.Get(s.o.tx, s.o.f.Name, store, keys)
		return err
	})
	return items, err
}

func (s *inCall) List(_ context.Context, store string, r quipu.ListRequest) (page quipu.Page, err error) {
	err = s.o.during(func() error {
		page, err = s.c.o.States.List(s.o.tx, s.o.f.Name, store, r)
		return err
	})
	return page, err
}

func (s *inCall) Apply(_ context.Context, store string, changes []quipu.Change) error {
	return s.o.during(func() error {
		return s.c.o.States.Change(s.o.tx, s.o.f.Name, store, changes)
	})
}

func (s *inCall) Publish(_ context.Context, ms []quipu.Message) error {
	return s.o.during(func() error { return s.c.o.Topics.Publish(s.o.tx, ms) })
}

func (s *inCall) Cancel(_ context.Context, topic, id string) error {
	return s.o.during(func() error { return s.c.o.Topics.Cancel(s.o.tx, topic, id) })
}

// Together is a savepoint that a failure goes back to.
func (s *inCall) Together(_ context.Context, do func(quipu.Group) error) error {
	return s.o.during(func() error {
		mark := s.o.tx.Mark()
		err := do(group{c: s.c, tx: s.o.tx, function: s.o.f.Name})
		if err != nil {
			s.o.tx.Rollback(mark)
		}
		return err
	})
}

// InvokeAsync adds a call to the call's transaction.
func (s *inCall) InvokeAsync(ctx context.Context, r quipu.CallRequest) (info quipu.CallInfo, err error) {
	p, err := s.c.accept(ctx, r)
	if err != nil {
		return info, err
	}
	err = s.o.during(func() error {
		info, err = s.c.enqueue(s.o.tx, p)
		return err
	})
	return info, err
}

// Invoke joins an atomic function to the call's transaction. A plain function acts at once.
func (s *inCall) Invoke(ctx context.Context, r quipu.CallRequest) (reply *quipu.CallReply, err error) {
	id := s.o.nextID()
	f, err := s.c.o.Find(r, id)
	if err != nil {
		return nil, err
	}
	r.Cause = s.o.nextCause()
	q := s.c.newRequest(r, f, id, s.o.depth+1)
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.o.ctx, cancel)
	defer stop()
	err = s.o.during(func() error {
		if f.Spec.Atomic {
			reply, err = s.c.join(ctx, s.o, q)
		} else {
			reply, err = s.c.run(ctx, q)
		}
		return err
	})
	return reply, err
}
