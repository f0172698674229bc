// Package deploy is the view of what is deployed: functions, their revisions, and which of them has what part of the
// traffic.
//
// An application is deployed as a whole: its bundle of sources is kept as a blob, every function is built, an instance of
// each new revision is started and looked at, and one record gives the traffic of the application's functions to them.
// Whatever is wrong with one of them refuses all, and changes nothing. Functions that the new manifest does not name any
// more are removed by the same record.
//
// A revision is immutable, and remembered while it is among the newest, has traffic or an alias, is what one with traffic
// took over from, has calls, or executions that have not ended; so its bundle is. To split the traffic or to roll back is one record, without
// a build. After a crash what was acknowledged is there, and what was live is live without being looked at again.
//
// Built sources lie in a folder per revision. They are a cache: what is missing or half done, after a crash
// or on another node, is unpacked from the blob and built again when an instance is to start.
package deploy

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/view"
)

// Name is the name of the view.
const Name = "deploy"

// Blobs keeps bundles. What was Put is held until Release, by when a record refers to it, or none ever will.
type Blobs interface {
	Put(data []byte) (quipu.BlobRef, error)
	Release(ref quipu.BlobRef)
	Get(ref quipu.BlobRef) ([]byte, error)
}

// triesAtOnce bounds the new revisions that are started side by side.
const triesAtOnce = 8

// Options of a View. All fields are required but Changed, Commit, Try, Settle, Busy and Pinned.
type Options struct {
	Dir           string // of built sources
	Blobs         Blobs
	BuildTime     time.Duration // that one build command may take; 0 means 10 minutes
	Clock         quipu.Clock
	CheckRoutes   func([]quipu.Function) error // refuses routes that collide
	CheckSchedule func(cron, timezone string) error
	CheckSandbox  func(quipu.Sandbox) error // refuses what cannot be had on this node
	// Try looks at a revision without traffic, whose application lies built in dir: it refuses what cannot be or does not
	// start, and answers what the function subscribes to besides its triggers. What it started is kept until Settle,
	// which is called for each Try that had no error: then the revision has its traffic, or will have none. They are
	// called concurrently.
	Try    func(ctx context.Context, f quipu.Function, dir string) (quipu.Asked, error)
	Settle func(f quipu.Function)
	// Busy lists the revisions of a function that have calls or instances.
	Busy func(name string) []string
	// Pinned tells, as part of a transaction, whether executions that have not ended belong to a revision: it stays.
	Pinned func(tx *view.Tx, name, revision string) (bool, error)
	// Commit takes part in the record of every change: app has these topics now, and the namespace these
	// functions. topics is nil if they stay as they are.
	Commit func(tx *view.Tx, app string, topics map[string]quipu.TopicSpec, functions []quipu.Function) error
	// Changed is told what was deployed before and what is now, after each change, one at a time. It must not
	// wait for a commit.
	Changed func(before, after []Deployed)
}

// View is the view, and quipu.Functions once it has been started.
type View struct {
	o     Options
	book  *view.Book
	built builds

	deploying sync.Mutex // one Deploy at a time builds and commits

	mu    sync.RWMutex // guards now
	now   catalog      // never changed in place
	heads []quipu.Function
}

// New makes the machine of the view.
func New(o Options) *View {
	if o.Busy == nil {
		o.Busy = func(string) []string { return nil }
	}
	if o.Pinned == nil {
		o.Pinned = func(*view.Tx, string, string) (bool, error) { return false, nil }
	}
	return &View{o: o, built: builds{dir: o.Dir, blobs: o.Blobs, time: cmp.Or(o.BuildTime, buildTimeDefault)}}
}

// Name is the constant Name.
func (v *View) Name() string { return Name }

// Start reads what is deployed in book, and follows it from now on.
func (v *View) Start(book *view.Book) error {
	v.book = book
	if err := v.reload(); err != nil {
		return err
	}
	if err := v.prune(); err != nil {
		return err
	}
	book.OnApply(Name, v.reload)
	return nil
}

// reload takes over what the view's records have made.
func (v *View) reload() error {
	tx := v.book.Look()
	defer tx.Close()
	now, err := load(tx)
	if err != nil {
		return err
	}
	before := v.catalog()
	if v.o.Changed != nil {
		v.publish(either(now, before)) // what is going is found until nothing leads to it
		v.o.Changed(before.deployed(), now.deployed())
	}
	v.publish(now)
	return nil
}

func (v *View) publish(c catalog) {
	heads := c.heads()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.now, v.heads = c, heads
}

func (v *View) catalog() catalog {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.now
}

// either is now, and what of before has no successor there.
func either(now, before catalog) catalog {
	all := maps.Clone(before)
	if all == nil {
		all = catalog{}
	}
	maps.Copy(all, now)
	return all
}

// Blobs visits the bundles of all revisions that are remembered.
func (v *View) Blobs(tx *view.Tx, visit func(quipu.BlobRef)) error {
	c, err := load(tx)
	c.visit(visit)
	return err
}

// Bundles visits those of what is followed, which is a little behind the view.
func (v *View) Bundles(visit func(quipu.BlobRef)) { v.catalog().visit(visit) }

func (c catalog) visit(visit func(quipu.BlobRef)) {
	for _, h := range c {
		for _, f := range h.of {
			visit(f.Bundle)
		}
	}
}

// Function finds a function by name.
func (v *View) Function(name string) (quipu.Function, error) {
	h := v.catalog()[name]
	if h == nil {
		return quipu.Function{}, noFunction(name)
	}
	return h.head(), nil
}

// Functions lists all functions, by name.
func (v *View) Functions() []quipu.Function {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return slices.Clone(v.heads)
}

// Choose is the revision that a call goes to: the named one, or without a name that to which the traffic split gives the
// key. Who comes from outside can name only what has traffic or an alias. CodeNoFunction, CodeNoRevision.
func (v *View) Choose(name, revision, key string, outside bool) (quipu.Function, error) {
	h := v.catalog()[name]
	if h == nil {
		return quipu.Function{}, noFunction(name)
	}
	if revision == "" {
		return h.choose(key), nil
	}
	f, err := h.find(revision)
	if err == nil && outside && !h.isOpen(f.Revision) {
		err = h.unknown(revision)
	}
	return f, err
}

// Revision is one that is remembered.
func (v *View) Revision(name, revision string) (f quipu.Function, ok bool) {
	if h := v.catalog()[name]; h != nil {
		f, ok = h.of[revision]
	}
	return f, ok
}

// Revisions lists what is remembered of a function, the newest first.
func (v *View) Revisions(name string) ([]quipu.Revision, error) {
	h := v.catalog()[name]
	if h == nil {
		return nil, noFunction(name)
	}
	return h.revisions(), nil
}

// Deploy replaces the functions of an application by those of its bundle.
func (v *View) Deploy(ctx context.Context, app string, bundle []byte, o quipu.DeployOptions) ([]quipu.Function, error) {
	if !nameForm.MatchString(app) {
		return nil, &quipu.Error{Code: quipu.CodeUsage, Op: "deploy",
			Text: fmt.Sprintf("%.80q cannot be the name of an application", app),
			Hint: "use lower-case letters, digits and hyphens, at most 63; it is the folder's name unless --app says otherwise"}
	}
	v.deploying.Lock()
	defer v.deploying.Unlock()
	functions, topics, err := v.plan(app, bundle)
	if err != nil {
		return nil, err
	}
	if err := v.checkRoutes(app, functions, o); err != nil {
		return nil, err
	}
	for _, f := range functions {
		if err := v.built.make(ctx, f, bundle); err != nil {
			return nil, err
		}
	}
	settle, err := v.try(ctx, functions)
	if err == nil {
		functions, err = v.commit(ctx, app, bundle, functions, topics, o)
	}
	settle()
	_ = v.prune() // the deploy is done, or refused, whatever becomes of old folders; the next start looks again, and says so
	if err != nil {
		return nil, err
	}
	return functions, nil
}

// checkRoutes refuses early, before anything is built, what commit would refuse.
func (v *View) checkRoutes(app string, functions []quipu.Function, o quipu.DeployOptions) error {
	after := either(v.catalog(), nil)
	after.deploy(app, functions, o)
	return v.o.CheckRoutes(after.heads())
}

// plan makes the functions that a bundle asks for.
func (v *View) plan(app string, bundle []byte) (functions []quipu.Function, topics map[string]quipu.TopicSpec, err error) {
	m, ref, err := v.built.inspect(bundle, v.o)
	if err != nil {
		return nil, nil, err
	}
	for i, d := range m.functions {
		if owner, err := v.Function(d.Metadata.Name); err == nil && owner.App != app {
			return nil, nil, m.fault(i, []string{"metadata", "name"},
				"the application %q has a function %q already", owner.App, owner.Name)
		}
		f := quipu.Function{
			Name: d.Metadata.Name, App: app, Spec: d.Spec, Bundle: ref,
			Revision: revision(d.Spec, ref), Deployed: v.o.Clock.Now().UTC(),
		}
		if known, ok := v.Revision(f.Name, f.Revision); ok {
			f = known
		}
		functions = append(functions, f)
	}
	return functions, m.topics, nil
}

// try has new revisions, and old ones that have no traffic, looked at. settle says that this is over.
func (v *View) try(ctx context.Context, functions []quipu.Function) (settle func(), err error) {
	if v.o.Try == nil {
		return func() {}, nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	places, tried := make(chan struct{}, triesAtOnce), make([]bool, len(functions))
	var all sync.WaitGroup
	for i := range functions {
		if v.hasTraffic(functions[i]) {
			continue
		}
		places <- struct{}{}
		all.Go(func() {
			asked, err := v.o.Try(ctx, functions[i], v.built.path(functions[i]))
			if tried[i] = err == nil; err != nil {
				cancel(err) // of several, the first counts
			} else if functions[i].Number == 0 {
				functions[i].Subscriptions, functions[i].Bindings, functions[i].Actors = asked.Subscriptions, asked.Bindings, asked.Actors
			}
			<-places
		})
	}
	all.Wait()
	return func() {
		for i, f := range functions {
			if tried[i] {
				v.o.Settle(f)
			}
		}
	}, context.Cause(ctx)
}

func (v *View) hasTraffic(f quipu.Function) bool {
	h := v.catalog()[f.Name]
	return h != nil && h.percent(f.Revision) > 0
}

// commit makes the record of a deploy. One that changes nothing has no operation, so no record.
func (v *View) commit(ctx context.Context, app string, bundle []byte, functions []quipu.Function, topics map[string]quipu.TopicSpec,
	o quipu.DeployOptions) (done []quipu.Function, err error) {
	if o.NoTraffic {
		topics = nil
	} else if topics == nil {
		topics = map[string]quipu.TopicSpec{}
	}
	_, err = v.book.Change(ctx, func(tx *view.Tx) error {
		ref, err := v.o.Blobs.Put(bundle)
		if err != nil {
			return fmt.Errorf("keep bundle: %w", err)
		}
		tx.OnClose(func() { v.o.Blobs.Release(ref) })
		return v.edit(tx, app, topics, func(c catalog) error {
			done = c.deploy(app, functions, o)
			for _, f := range done {
				if err := v.tidy(tx, c[f.Name]); err != nil {
					return err
				}
			}
			return v.o.CheckRoutes(c.heads())
		})
	})
	return done, err
}

// tidy forgets what there is no reason to remember of a function. What executions are pinned to is found in the transaction, so
// that none can begin there meanwhile. CodePinned.
func (v *View) tidy(tx *view.Tx, h *history) error {
	bound, executed := v.o.Busy(h.name), 0
	for _, revision := range h.idle(bound) {
		pinned, err := v.o.Pinned(tx, h.name, revision)
		if err != nil {
			return err
		}
		if pinned {
			bound = append(bound, revision)
			executed++
		}
	}
	if executed > quipu.RevisionsPinned {
		return &quipu.Error{Code: quipu.CodePinned, Op: "deploy",
			Text: fmt.Sprintf("executions of function %s that have not ended are pinned to %d former revisions, and at most %d are kept for them", h.name, executed, quipu.RevisionsPinned),
			Hint: fmt.Sprintf("quipu workflow ls --app %s shows them: let those of the oldest revisions end, or terminate them; quipu workflow rerun makes one again", h.name)}
	}
	h.forget(bound)
	return nil
}

// edit buffers the record of what do does to what is deployed.
func (v *View) edit(tx *view.Tx, app string, topics map[string]quipu.TopicSpec, do func(catalog) error) error {
	before, err := load(tx)
	if err != nil {
		return err
	}
	after := either(before, nil)
	if err := do(after); err != nil {
		return err
	}
	c, err := changeOf(before, after)
	if err != nil {
		return err
	}
	if err := c.buffer(tx); err != nil || v.o.Commit == nil {
		return err
	}
	return v.o.Commit(tx, app, topics, after.heads())
}

// buffer adds the operation to a transaction, unless it does nothing.
func (c change) buffer(tx *view.Tx) error {
	if c.isEmpty() {
		return nil
	}
	err := c.each(func(key string, value []byte) error {
		tx.Put(Name, key, value)
		return nil
	})
	if err != nil {
		return err
	}
	body, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return tx.Do(quipu.Op{View: Name, Body: body})
}

// Apply writes what a change does.
func (v *View) Apply(b *view.Batch, op []byte, _ view.At) error {
	var c change
	if err := json.Unmarshal(op, &c); err != nil {
		return err
	}
	return c.each(func(key string, value []byte) error {
		if value == nil {
			return b.Delete(Name, key)
		}
		return b.Set(Name, key, value)
	})
}

// change edits one function, and answers its revisions.
func (v *View) change(ctx context.Context, name string, do func(*history) error) ([]quipu.Revision, error) {
	_, err := v.book.Change(ctx, func(tx *view.Tx) error {
		return v.edit(tx, "", nil, func(c catalog) error {
			h, err := c.edit(name)
			if err != nil {
				return err
			}
			if err := do(h); err != nil {
				return err
			}
			return v.o.CheckRoutes(c.heads())
		})
	})
	if err != nil {
		return nil, err
	}
	return v.Revisions(name)
}

// Split gives each revision its part of the traffic.
func (v *View) Split(ctx context.Context, name string, parts []quipu.Part) ([]quipu.Revision, error) {
	return v.change(ctx, name, func(h *history) error { return h.split(parts) })
}

// Rollback gives all traffic to a revision, "" for the one from which the newest with traffic took over.
func (v *View) Rollback(ctx context.Context, name, revision string) ([]quipu.Revision, error) {
	return v.change(ctx, name, func(h *history) error { return h.rollback(revision) })
}

// SetAlias names a revision, or takes the name away if revision is "".
func (v *View) SetAlias(ctx context.Context, name, alias, revision string) error {
	_, err := v.change(ctx, name, func(h *history) error { return h.alias(alias, revision) })
	return err
}

// Remove takes a function away, with all its revisions.
func (v *View) Remove(ctx context.Context, name string) error {
	_, err := v.book.Change(ctx, func(tx *view.Tx) error {
		return v.edit(tx, "", nil, func(c catalog) error {
			if c[name] == nil {
				return noFunction(name)
			}
			delete(c, name)
			return nil
		})
	})
	return err
}

// prune removes built sources that are not needed: of revisions that are forgotten, or were refused, once nothing of
// them runs. No Deploy may be under way.
func (v *View) prune() error {
	keep := map[string]bool{}
	for name, h := range v.catalog() {
		for revision := range h.of {
			keep[name+"-"+revision] = true
		}
	}
	return v.built.prune(func(folder string) bool {
		name, revision := folder, ""
		if i := strings.LastIndexByte(folder, '-'); i >= 0 {
			name, revision = folder[:i], folder[i+1:]
		}
		return keep[folder] || slices.Contains(v.o.Busy(name), revision)
	})
}

// Folder is where the application of a function lies, built; it may have been removed.
func (v *View) Folder(f quipu.Function) string { return v.built.path(f) }

// revision names what runs: the same sources and the same spec give the same name.
func revision(spec quipu.Spec, bundle quipu.BlobRef) string {
	text, err := json.Marshal(spec)
	if err != nil {
		panic(fmt.Sprintf("deploy: a spec that was parsed cannot be written: %v", err))
	}
	sum := sha256.Sum256(append([]byte(bundle.Hash), text...))
	return hex.EncodeToString(sum[:6])
}

// Prepare answers the folder in which a function runs, built.
func (v *View) Prepare(ctx context.Context, f quipu.Function) (dir string, err error) {
	if err := v.built.make(ctx, f, nil); err != nil {
		return "", err
	}
	return workDir(v.built.path(f), f.Spec.Source)
}
