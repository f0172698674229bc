package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/deploy"
	"github.com/quipu-run/quipu/gateway"
	"github.com/quipu-run/quipu/pool"
)

// find is what a name stands for: an attached application, or a deployed function.
func (ns *namespace) find(name string) (quipu.Function, error) {
	if one := ns.attached.first(name); one != nil {
		return one.f, nil
	}
	return ns.View.Function(name)
}

// choose is the revision that a call goes to. A request with an idempotency key goes where the others with it go.
func (ns *namespace) choose(r quipu.CallRequest, id string) (quipu.Function, error) {
	if one := ns.attached.first(r.Function); one != nil {
		if r.Revision != "" && r.Revision != one.f.Revision {
			return quipu.Function{}, &quipu.Error{Code: quipu.CodeNoRevision, Op: "revision.find",
				Text: fmt.Sprintf("%s is an attached application, which has no revisions", r.Function)}
		}
		return one.f, nil
	}
	key := r.IdempotencyKey
	if key == "" {
		key = id
	}
	return ns.View.Choose(r.Function, r.Revision, key, r.Trigger == gateway.TriggerRoute)
}

// busy are the revisions of a function that have instances or calls, those included that wait to be tried.
func (ns *namespace) busy(function string) []string {
	return append(ns.pool.Busy(function), ns.Caller.Bound(function)...)
}

// changed follows what is deployed: instances of what is new first, so that a route never leads to a function
// that cannot be acquired; then routes; and last what is gone, which no route names any more.
func (ns *namespace) changed(before, after []deploy.Deployed) {
	heads := make([]quipu.Function, len(after))
	var other []quipu.Function
	for i, d := range after {
		heads[i] = d.Head
		same := func(b deploy.Deployed) bool {
			return b.Head.Name == d.Head.Name && sameRevisions(b.Live, d.Live) && sameRevisions(b.Named, d.Named)
		}
		if !slices.ContainsFunc(before, same) {
			ns.pool.Set(d.Head.Name, ns.tame(d.Live), ns.tame(d.Named))
			other = append(other, d.Head)
		}
	}
	ns.label(heads)
	ns.outsiders.forget()
	ns.access.forget()
	ns.feeders.follow(ns, heads)
	if err := ns.node.gateway.SetRoutes(ns.name, heads); err != nil {
		ns.node.fail(fmt.Errorf("routes of namespace %s, which were checked before: %w", ns.name, err))
		return
	}
	for _, d := range before {
		if !slices.ContainsFunc(heads, func(a quipu.Function) bool { return a.Name == d.Head.Name }) {
			ns.pool.Remove(d.Head.Name)
		}
	}
	if ns.Engine != nil { // it looks by itself when it starts
		ns.Engine.Sync()
		ns.ticker.Sync()
		ns.Caller.Sync()
		ns.steps.Sync()
		for _, f := range heads {
			ns.hasten(f.Name)
			ns.hastenReminders(f.Actors)
		}
		for _, f := range other {
			ns.wakeFlows(f)
		}
	}
}

func sameRevisions(a, b []quipu.Function) bool {
	return slices.EqualFunc(a, b, func(a, b quipu.Function) bool { return a.Revision == b.Revision })
}

// checkTogether refuses what functions cannot have side by side: routes that collide, and reservations that leave others
// less than a tenth of the namespace's calls.
func (ns *namespace) checkTogether(functions []quipu.Function) error {
	if err := gateway.CheckRoutes(functions); err != nil {
		return err
	}
	all := cmp.Or(ns.node.cfg.CallsMax, pool.CallsMaxDefault)
	reserved, most := 0, all-(all+9)/10
	for _, f := range functions {
		if reserved += f.Spec.Scale.Reserved; reserved > most {
			return &quipu.Error{Code: quipu.CodeManifest, Op: "deploy",
				Text: fmt.Sprintf("scale.reserved of function %s: with it %d calls would be reserved, but of the %d of the namespace at most %d can be", f.Name, reserved, all, most),
				Hint: "reserve less, or start the node with a larger --calls-max"}
		}
	}
	return nil
}

// topicsOf are the subscriptions of a revision. What its application asks for is known only after it was started.
func (ns *namespace) topicsOf(f quipu.Function) []quipu.TopicTrigger {
	if known, ok := ns.View.Revision(f.Name, f.Revision); ok {
		f = known
	}
	return f.Topics()
}

// try looks at a revision before it takes traffic: its secrets can be read, its components start, an instance starts and is
// healthy, and a Dapr application, with the files beside it, says what it subscribes to. The instance stays, for the first calls.
func (ns *namespace) try(ctx context.Context, f quipu.Function, dir string) (asked quipu.Asked, err error) {
	if _, err := secretsIn(dir); err != nil {
		return asked, err
	}
	using, give, err := ns.takeUses(ctx, f, dir)
	if err != nil {
		return asked, err
	}
	defer give()
	for _, w := range using.warnings {
		ns.node.cfg.Logger.Warn(w, "fn", f.Name)
	}
	began := ns.node.clock.Now()
	ns.node.labels.admit(ns.name, f.Name)
	l, err := ns.pool.Try(ctx, f)
	if err != nil {
		return asked, ns.refusal(ctx, f, began, err)
	}
	defer func() {
		if err != nil {
			ns.pool.Settle(f)
		}
	}()
	defer l.Release()
	if f.Spec.Contract != quipu.ContractDapr {
		return asked, nil
	}
	ctx, cancel := context.WithTimeout(ctx, f.Spec.StartTimeout.Std())
	defer cancel()
	if asked, err = using.ask(ctx, f, ns.appOf(l)); err == nil {
		asked.Actors, err = ns.askActors(ctx, f, ns.appOf(l))
	}
	return asked, err
}

// What a refusal shows of what an instance printed.
const (
	refusalLines = 20
	refusalBytes = 500  // of each line
	refusalLooks = 1000 // lines of the function that are looked at for them
)

// refusal is the error of a revision that does not start, with what its instance printed. Other errors stay.
func (ns *namespace) refusal(ctx context.Context, f quipu.Function, began time.Time, err error) error {
	e := quipu.AsError(err)
	if e.Code != quipu.CodeStart || ctx.Err() != nil {
		return err
	}
	why, _, _ := strings.Cut(e.Text, "; its last words: ") // they follow, with what came before them
	if ill := (unwell{}); errors.As(err, &ill) {
		why += ": " + ill.Error()
	}
	lines, readErr := ns.printed(ctx, f, began)
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	return &quipu.Error{Code: quipu.CodeRefused, Op: "deploy", Err: err,
		Text: strings.Join(append([]string{why}, lines...), "\n"),
		Hint: "nothing was deployed, and what was live goes on; mend it and deploy again"}
}

// printed is the last lines that instances of a revision printed since began.
func (ns *namespace) printed(ctx context.Context, f quipu.Function, began time.Time) (lines []string, err error) {
	instances := f.Name + "-" + f.Revision[:8] + "-"
	for line, err := range ns.lines.Read(ctx, f.Name, refusalLooks, false) {
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(line.Instance, instances) && !line.Time.Before(began) {
			lines = append(lines, harmless(line.Text))
		}
	}
	return lines[max(0, len(lines)-refusalLines):], nil
}

// harmless is the start of a line without what a terminal would take for commands.
func harmless(line string) string {
	if len(line) > refusalBytes {
		line = line[:refusalBytes] + "…"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\t' {
			return '·'
		}
		return r
	}, strings.ToValidUTF8(line, "·"))
}

// Times of the questions for the health of an instance.
const (
	healthFirst   = 5 * time.Millisecond // until the second question; doubles
	healthMost    = 500 * time.Millisecond
	healthAttempt = 5 * time.Second // for one answer
)

// unwell is what is wrong with the health of an instance.
type unwell struct{ path, why string }

func (u unwell) Error() string { return "GET " + u.path + " " + u.why }

// healthy asks an instance for its health path until it answers with a status from 200 to 399. ctx ends with the time
// that the start may take.
func (ns *namespace) healthy(ctx context.Context, f quipu.Function, instance string, i quipu.Instance) error {
	if f.Spec.Health == "" {
		return nil
	}
	a := ns.appAt(instance, f, i)
	why := "was not answered in time"
	for wait := healthFirst; ; wait = min(2*wait, healthMost) {
		now := askHealth(ctx, f, a)
		if now == "" {
			return nil
		}
		if ctx.Err() == nil { // else the question was cut off, and what was heard before says more
			why = now
		}
		select {
		case <-ns.node.upkeep.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", unwell{f.Spec.Health, why}, ctx.Err())
		case <-i.Done():
			return &quipu.Error{Code: quipu.CodeStart, Op: "instance.start",
				Text: fmt.Sprintf("function %s ended before it was healthy: %s", f.Name, i.Exit())}
		}
	}
}

// askHealth answers what is wrong, "" for nothing.
func askHealth(ctx context.Context, f quipu.Function, a app) string {
	ctx, cancel := context.WithTimeout(ctx, healthAttempt)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://function"+f.Spec.Health, nil)
	if err != nil {
		return "cannot be asked for: " + err.Error()
	}
	reply, err := a.Do(r)
	if err != nil {
		return "was not answered: " + err.Error()
	}
	_ = reply.Body.Close() // only the status counts
	if reply.StatusCode < 200 || reply.StatusCode > 399 {
		return fmt.Sprintf("answered %d", reply.StatusCode)
	}
	return ""
}
