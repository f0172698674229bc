// Package deploy is the view of what is deployed: functions at their current revisions.
//
// An application is deployed as a whole: its bundle of sources is kept as a blob, every function is built,
// and one record replaces the application's functions. Whatever is wrong with one of them refuses all, and
// changes nothing. Functions that the new manifest does not name any more are removed by the same record.
//
// Built sources lie in a folder per revision. They are a cache: what is missing or half done, after a crash
// or on another node, is unpacked from the blob and built again when an instance is to start.
package deploy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/view"
)

// Name is the name of the view.
const Name = "deploy"

const functionPrefix = "f/"

// Blobs keeps bundles. What was Put is held until Release, by when a record refers to it, or none ever will.
type Blobs interface {
	Put(data []byte) (quipu.BlobRef, error)
	Release(ref quipu.BlobRef)
	Get(ref quipu.BlobRef) ([]byte, error)
}

// Options of a View. All fields are required but Changed, Commit and Inspect.
type Options struct {
	Dir           string // of built sources
	Blobs         Blobs
	Clock         quipu.Clock
	CheckRoutes   func([]quipu.Function) error // refuses routes that collide
	CheckSchedule func(cron, timezone string) error
	CheckSandbox  func(quipu.Sandbox) error // refuses what cannot be had on this node
	// Inspect looks at a function whose application lies built in dir: it refuses what cannot be, and answers
	// what the function subscribes to besides its triggers.
	Inspect func(ctx context.Context, f quipu.Function, dir string) ([]quipu.TopicTrigger, error)
	// Commit takes part in the record of a deploy or a removal: app has these topics now, and the namespace these
	// functions. topics is nil for a removal.
	Commit func(tx *view.Tx, app string, topics map[string]quipu.TopicSpec, functions []quipu.Function) error
	// Changed is told what was deployed before and what is now, after each change, one at a time. It must not
	// wait for a commit.
	Changed func(before, after []quipu.Function)
}

// View is the view, and quipu.Functions once it has been started.
type View struct {
	o     Options
	book  *view.Book
	built builds

	deploying sync.Mutex // one Deploy at a time builds and commits

	mu        sync.RWMutex // guards functions
	functions []quipu.Function
}

// New makes the machine of the view.
func New(o Options) *View {
	return &View{o: o, built: builds{dir: o.Dir, blobs: o.Blobs}}
}

// Name is the constant Name.
func (v *View) Name() string { return Name }

// Start reads what is deployed in book, and follows it from now on.
func (v *View) Start(book *view.Book) error {
	v.book = book
	if err := v.reload(); err != nil {
		return err
	}
	if err := v.built.prune(v.Functions()); err != nil {
		return err
	}
	book.OnApply(Name, v.reload)
	return nil
}

// reload takes over what the view's records have made.
func (v *View) reload() error {
	tx := v.book.Look()
	defer tx.Close()
	now, err := list(tx)
	if err != nil {
		return err
	}
	before := v.Functions()
	if v.o.Changed != nil {
		v.publish(either(now, before)) // what is going is found until nothing leads to it
		v.o.Changed(before, now)
	}
	v.publish(now)
	return nil
}

func (v *View) publish(functions []quipu.Function) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.functions = functions
}

// either is now, and what of before has no successor there, by name.
func either(now, before []quipu.Function) []quipu.Function {
	all := slices.Clone(now)
	byName := func(a, b quipu.Function) int { return strings.Compare(a.Name, b.Name) }
	for _, f := range before {
		if i, found := slices.BinarySearchFunc(all, f, byName); !found {
			all = slices.Insert(all, i, f)
		}
	}
	return all
}

// list reads all functions, by name.
func list(tx *view.Tx) (all []quipu.Function, err error) {
	var bad error
	err = tx.Scan(Name, functionPrefix, functionPrefix+"\xff", func(_ string, value []byte) bool {
		var f quipu.Function
		if bad = json.Unmarshal(value, &f); bad == nil {
			all = append(all, f)
		}
		return bad == nil
	})
	if err == nil && bad != nil {
		err = fmt.Errorf("read functions: %w", bad)
	}
	return all, err
}

// Blobs visits the bundles of what is deployed.
func (v *View) Blobs(tx *view.Tx, visit func(quipu.BlobRef)) error {
	functions, err := list(tx)
	for _, f := range functions {
		visit(f.Bundle)
	}
	return err
}

// Function finds a function by name.
func (v *View) Function(name string) (quipu.Function, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	i, ok := slices.BinarySearchFunc(v.functions, name, func(f quipu.Function, name string) int {
		return strings.Compare(f.Name, name)
	})
	if !ok {
		return quipu.Function{}, &quipu.Error{Code: quipu.CodeNoFunction, Op: "function.find",
			Text: fmt.Sprintf("no function %q is deployed", name), Hint: quipu.Codes[quipu.CodeNoFunction].Next}
	}
	return v.functions[i], nil
}

// Functions lists all functions, by name.
func (v *View) Functions() []quipu.Function {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return slices.Clone(v.functions)
}

// Deploy replaces the functions of an application by those of its bundle.
func (v *View) Deploy(ctx context.Context, app string, bundle []byte) ([]quipu.Function, error) {
	if !nameForm.MatchString(app) {
		return nil, &quipu.Error{Code: quipu.CodeUsage, Op: "deploy",
			Text: fmt.Sprintf("%q cannot be the name of an application", app),
			Hint: "use lower-case letters, digits and hyphens, at most 63; it is the folder's name unless --app says otherwise"}
	}
	v.deploying.Lock()
	defer v.deploying.Unlock()
	functions, topics, err := v.plan(app, bundle)
	if err != nil {
		return nil, err
	}
	if err := v.o.CheckRoutes(v.with(app, functions)); err != nil {
		return nil, err
	}
	for _, f := range functions {
		if err := v.built.make(ctx, f, bundle); err != nil {
			return nil, err
		}
	}
	if err := v.inspect(ctx, functions); err != nil {
		return nil, err
	}
	_, err = v.book.Change(ctx, func(tx *view.Tx) error {
		ref, err := v.o.Blobs.Put(bundle)
		if err != nil {
			return fmt.Errorf("keep bundle: %w", err)
		}
		tx.OnClose(func() { v.o.Blobs.Release(ref) })
		return v.replace(tx, app, topics, functions)
	})
	if err != nil {
		return nil, err
	}
	return functions, nil
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
		functions = append(functions, quipu.Function{
			Name: d.Metadata.Name, App: app, Spec: d.Spec, Bundle: ref,
			Revision: revision(d.Spec, ref), Deployed: v.o.Clock.Now().UTC(),
		})
	}
	return functions, m.topics, nil
}

// inspect lets others look at what was built.
func (v *View) inspect(ctx context.Context, functions []quipu.Function) (err error) {
	if v.o.Inspect == nil {
		return nil
	}
	for i, f := range functions {
		if functions[i].Subscriptions, err = v.o.Inspect(ctx, f, v.built.path(f)); err != nil {
			return err
		}
	}
	return nil
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

// with is everything deployed, with the functions of app replaced.
func (v *View) with(app string, functions []quipu.Function) []quipu.Function {
	all := slices.DeleteFunc(v.Functions(), func(f quipu.Function) bool { return f.App == app })
	return append(all, functions...)
}

// change is the body of the view's operation.
type change struct {
	Set    []quipu.Function `json:"set,omitempty"`
	Remove []string         `json:"remove,omitempty"`
}

// replace buffers the record of a deploy. One that changes nothing has no operation, so no record.
func (v *View) replace(tx *view.Tx, app string, topics map[string]quipu.TopicSpec, functions []quipu.Function) error {
	if topics == nil {
		topics = map[string]quipu.TopicSpec{}
	}
	old, err := list(tx)
	if err != nil {
		return err
	}
	var c change
	for _, f := range functions {
		same := func(o quipu.Function) bool { return o.Name == f.Name && o.App == app && o.Revision == f.Revision }
		if !slices.ContainsFunc(old, same) {
			c.Set = append(c.Set, f)
		}
	}
	for _, o := range old {
		named := func(f quipu.Function) bool { return f.Name == o.Name }
		if o.App == app && !slices.ContainsFunc(functions, named) {
			c.Remove = append(c.Remove, o.Name)
		}
	}
	if err := v.commit(tx, c); err != nil || v.o.Commit == nil {
		return err
	}
	after := slices.DeleteFunc(old, func(o quipu.Function) bool { return o.App == app })
	return v.o.Commit(tx, app, topics, append(after, functions...))
}

// Remove takes a function away.
func (v *View) Remove(ctx context.Context, name string) error {
	_, err := v.book.Change(ctx, func(tx *view.Tx) error {
		_, ok, err := tx.Get(Name, functionPrefix+name)
		if err == nil && !ok {
			_, err = v.Function(name)
		}
		if err != nil {
			return err
		}
		if err := v.commit(tx, change{Remove: []string{name}}); err != nil || v.o.Commit == nil {
			return err
		}
		after, err := list(tx)
		if err != nil {
			return err
		}
		return v.o.Commit(tx, "", nil, after)
	})
	return err
}

func (v *View) commit(tx *view.Tx, c change) error {
	if len(c.Set)+len(c.Remove) == 0 {
		return nil
	}
	for _, f := range c.Set {
		value, err := json.Marshal(f)
		if err != nil {
			return err
		}
		tx.Put(Name, functionPrefix+f.Name, value)
	}
	for _, name := range c.Remove {
		tx.Put(Name, functionPrefix+name, nil)
	}
	body, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return tx.Do(quipu.Op{View: Name, Body: body})
}

// Apply writes what a deploy or a removal does.
func (v *View) Apply(b *view.Batch, op []byte, _ view.At) error {
	var c change
	if err := json.Unmarshal(op, &c); err != nil {
		return err
	}
	for _, f := range c.Set {
		value, err := json.Marshal(f)
		if err != nil {
			return err
		}
		if err := b.Set(Name, functionPrefix+f.Name, value); err != nil {
			return err
		}
	}
	for _, name := range c.Remove {
		if err := b.Delete(Name, functionPrefix+name); err != nil {
			return err
		}
	}
	return nil
}

// Prepare answers the folder in which a function runs, built.
func (v *View) Prepare(ctx context.Context, f quipu.Function) (dir string, err error) {
	if err := v.built.make(ctx, f, nil); err != nil {
		return "", err
	}
	return workDir(v.built.path(f), f.Spec.Source)
}
