package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/durable"
	"github.com/quipu-run/quipu/sdk"
	"github.com/quipu-run/quipu/view"
)

// A fork is a namespace that began as another one was at some record. Its views have a store of their own, made of links to files of
// the parent's, and its book begins empty:
//
//	DATA/forks/NAME/fork.json   where it comes from
//	DATA/forks/NAME/db, snap    its store
//
// The folder gets its name when it is whole, and then the book is made: a folder without a book is left of a fork that
// was not finished, or of a namespace that was removed.
const (
	forkFile     = "fork.json"
	forkMemTable = 1 << 20 // of its store: there may be many forks
	forksMax     = 64      // at a time
)

// origin is fork.json.
type origin struct {
	From string     `json:"from"`
	At   quipu.Seq  `json:"at"`
	Keys quipu.Book `json:"keys"` // view.Options.Keys
	// Running: triggers, schedules and calls that wait go on, as in any namespace. Without it nothing happens by itself.
	Running bool `json:"running"`
	// Scratch: it serves one replay, and is removed at the next start. Its instances reach no network, unless Outside.
	Scratch bool `json:"scratch,omitempty"`
	Outside bool `json:"outside,omitempty"`
}

// Fork makes a namespace of another one as it was at the record at; 0 is now. It is durable on return.
// CodeNotFound, CodeTrimmed, CodeTooMany, and CodeUsage for a name that cannot be or a record that is not there.
func (n *Node) Fork(ctx context.Context, from, name string, at quipu.Seq, running bool) (sdk.Namespace, error) {
	ns, err := n.fork(ctx, from, name, origin{From: from, At: at, Running: running})
	if err != nil {
		return sdk.Namespace{}, err
	}
	return ns.describe(), nil
}

func (n *Node) fork(ctx context.Context, from, name string, o origin) (*namespace, error) {
	parent, err := n.namespace(from)
	if err != nil {
		return nil, err
	}
	n.namespaces.changing.Lock()
	defer n.namespaces.changing.Unlock()
	if err := n.mayFork(name); err != nil {
		return nil, err
	}
	past := o.At != 0
	pinned, done := n.blobs.Reading() // what the fork refers to stays until it is seen to
	defer done()
	o, err = n.linkFork(ctx, parent, name, o, pinned)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(n.forkFolder(name)))
	}
	ns, err := n.openNamespace(ctx, name)
	if err != nil {
		return nil, err
	}
	if past { // what is now was pinned
		err = ns.whole(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, n.removeNamespace(ctx, ns))
	}
	return ns, nil
}

func (n *Node) forkFolder(name string) string { return n.path("forks", name) }

// mayFork refuses a name. changing is held, as by all that follows.
func (n *Node) mayFork(name string) error {
	if err := checkNamespace(name); err != nil {
		return err
	}
	forks := 0
	for _, ns := range n.namespaces.all() {
		if ns.name == name {
			return &quipu.Error{Code: quipu.CodeUsage, Op: "fork", Text: fmt.Sprintf("there is a namespace %q already", name),
				Hint: fmt.Sprintf("choose another name, or quipu rm namespace %s", name)}
		}
		if ns.origin != nil {
			forks++
		}
	}
	if forks >= forksMax {
		return &quipu.Error{Code: quipu.CodeTooMany, Op: "fork", Text: fmt.Sprintf("there are %d forks already", forksMax), Hint: "quipu rm namespace NAME takes one away"}
	}
	return nil
}

// linkFork makes the folder of a fork, durably and under its name.
func (n *Node) linkFork(ctx context.Context, parent *namespace, name string, o origin, pinned func()) (origin, error) {
	dir := n.forkFolder(name)
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(filepath.Dir(dir), 0o700)); err != nil {
		return o, fmt.Errorf("clear folder of fork: %w", err)
	}
	err := assemble(dir, func(temp string) error {
		// Machines that are started by nobody.
		made, err := parent.store.Fork(ctx, parent.book, o.At, temp, n.newNamespace(name).machines()...)
		pinned()
		if err != nil {
			return err
		}
		o.At, o.Keys = made.At, made.Keys
		return o.write(temp)
	})
	if err == nil {
		err = durable.Sync(n.cfg.Data)
	}
	return o, err
}

// write keeps where a fork comes from, durably.
func (o origin) write(dir string) error {
	return durable.Replace(filepath.Join(dir, forkFile), o.encode())
}

func (o origin) encode() []byte {
	text, err := json.Marshal(o)
	if err != nil {
		panic(fmt.Sprintf("server: %+v has no JSON: %v", o, err)) // strings and numbers
	}
	return append(text, '\n')
}

// originOf reads where a namespace comes from; nil if it is no fork.
func (n *Node) originOf(name string) (*origin, error) {
	text, err := os.ReadFile(filepath.Join(n.forkFolder(name), forkFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	o := &origin{}
	if err == nil {
		err = json.Unmarshal(text, o)
	}
	if err != nil {
		return nil, &quipu.Error{Code: quipu.CodeCorrupt, Op: "fork.open", Err: err,
			Text: fmt.Sprintf("where namespace %s comes from cannot be read", name), Hint: "restore the data directory from a backup"}
	}
	return o, nil
}

// storeOf opens the store of a fork.
func (n *Node) storeOf(name string, o *origin) (*view.Store, error) {
	return view.OpenStore(view.Options{Dir: n.forkFolder(name), Logger: n.cfg.Logger, Reading: n.blobs.Reading, Failed: n.fail,
		Keys: o.Keys, MemTableBytes: forkMemTable})
}

// whole refuses a fork of a time whose large values were collected since.
func (ns *namespace) whole(ctx context.Context) error {
	missing := 0
	err := ns.refer(ctx, func(ref quipu.BlobRef) {
		if !ns.node.blobs.Has(ref) {
			missing++
		}
	})
	if err == nil && missing > 0 {
		err = &quipu.Error{Code: quipu.CodeTrimmed, Op: "fork", Text: fmt.Sprintf("of what was at seq %s, %d large values were overwritten since and are gone", ns.origin.At, missing),
			Hint: "choose a later seq"}
	}
	return err
}

// tidyForks removes what is left of forks that were not finished or that served a replay, and of namespaces that were removed. names are
// the namespaces that have a book.
func (n *Node) tidyForks(ctx context.Context, names map[string]bool) error {
	entries, err := os.ReadDir(n.path("forks"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		name := e.Name()
		o, badOrigin := n.originOf(name)
		switch {
		case !names[name]:
			err = errors.Join(err, os.RemoveAll(n.forkFolder(name)))
		case badOrigin != nil:
			err = errors.Join(err, badOrigin)
		case o != nil && o.Scratch:
			err = errors.Join(err, n.forget(ctx, name, true))
			delete(names, name)
		}
	}
	return err
}

// Resume lets a fork run as any namespace does: triggers, schedules and calls that wait. Calls under way end first.
// CodeNotFound; CodeUsage for what is no fork.
func (n *Node) Resume(ctx context.Context, name string) (sdk.Namespace, error) {
	ns, err := n.namespace(name)
	if err != nil {
		return sdk.Namespace{}, err
	}
	n.namespaces.changing.Lock()
	defer n.namespaces.changing.Unlock()
	if ns.origin == nil || n.namespaces.find(name) != ns {
		return sdk.Namespace{}, &quipu.Error{Code: quipu.CodeUsage, Op: "fork.resume", Text: fmt.Sprintf("namespace %s is no fork", name)}
	}
	if ns.origin.Running {
		return ns.describe(), nil
	}
	o := *ns.origin
	o.Running = true
	if err := o.write(n.forkFolder(name)); err != nil {
		return sdk.Namespace{}, err
	}
	if ns, err = n.reopen(ctx, ns); err != nil {
		return sdk.Namespace{}, err
	}
	return ns.describe(), nil
}

// reopen closes a namespace and opens it again.
func (n *Node) reopen(ctx context.Context, ns *namespace) (*namespace, error) {
	drain, cancel := context.WithTimeout(ctx, drainMax)
	defer cancel()
	if err := ns.close(drain); err != nil {
		return nil, n.lost(ns, err)
	}
	again, err := n.openNamespace(context.WithoutCancel(ctx), ns.name)
	if err != nil {
		return nil, n.lost(ns, err)
	}
	return again, nil
}

// lost ends the node: a namespace that should be there is not.
func (n *Node) lost(ns *namespace, err error) error {
	err = fmt.Errorf("namespace %s: %w", ns.name, err)
	n.fail(err)
	return err
}

// RemoveNamespace removes a namespace with all that it has, durable on return. CodeNotFound; CodeUsage for the default one.
func (n *Node) RemoveNamespace(ctx context.Context, name string) error {
	if name == DefaultNamespace {
		return &quipu.Error{Code: quipu.CodeUsage, Op: "namespace.remove", Text: "the default namespace cannot be removed",
			Hint: "quipu rm function NAME removes what is in it"}
	}
	ns, err := n.namespace(name)
	if err != nil {
		return err
	}
	n.namespaces.changing.Lock()
	defer n.namespaces.changing.Unlock()
	if n.namespaces.find(name) != ns {
		return nil // somebody else has removed it
	}
	return n.removeNamespace(ctx, ns)
}

// removeNamespace ends a namespace and deletes what it has.
func (n *Node) removeNamespace(ctx context.Context, ns *namespace) error {
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainMax)
	defer cancel()
	n.namespaces.remove(ns.name)
	err := n.gateway.SetRoutes(ns.name, nil)
	ns.Engine.Stop()
	ns.Caller.Stop()
	if err = errors.Join(err, ns.close(drain)); err != nil {
		return err
	}
	n.labels.forget(ns.name)
	return n.forget(context.WithoutCancel(ctx), ns.name, ns.origin != nil)
}

// forget deletes the books of a namespace that is closed, and then its folders and what the views have of it: after a crash in
// between nobody refers to these any more, and the next start removes them.
func (n *Node) forget(ctx context.Context, name string, forked bool) error {
	books, err := n.log.Books(ctx)
	if err != nil {
		return err
	}
	for _, b := range books {
		if b.Name != quipu.PlatformPrefix+name && !isBookOf(b.Name, name) {
			continue
		}
		if err := n.log.DeleteBook(ctx, b.ID); err != nil {
			return fmt.Errorf("delete book %s: %w", b.Name, err)
		}
	}
	for _, dir := range []string{n.path("apps", name), n.path("logs", name), n.forkFolder(name)} {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	if !forked {
		err = errors.Join(err, n.pruneStore(ctx))
	}
	return err
}

// pruneStore takes from the node's store what belongs to books that are not there any more.
func (n *Node) pruneStore(ctx context.Context) error {
	books, err := n.log.Books(ctx)
	if err != nil {
		return err
	}
	there := map[quipu.Book]bool{}
	for _, b := range books {
		there[b.ID] = true
	}
	return n.store.Prune(func(b quipu.Book) bool { return there[b] })
}

// ListNamespaces describes all.
func (n *Node) ListNamespaces() (list []sdk.Namespace) {
	for _, ns := range n.namespaces.all() {
		list = append(list, ns.describe())
	}
	slices.SortFunc(list, func(a, b sdk.Namespace) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// quiet tells whether nothing happens in it by itself.
func (ns *namespace) quiet() bool { return ns.origin != nil && !ns.origin.Running }

// tame are revisions as a quiet namespace runs them: no instance starts that nobody calls.
func (ns *namespace) tame(list []quipu.Function) []quipu.Function {
	if !ns.quiet() {
		return list
	}
	list = slices.Clone(list)
	for i := range list {
		list[i].Spec.Scale.Min, list[i].Spec.Scale.Warm = 0, 0
	}
	return list
}

func (ns *namespace) describe() sdk.Namespace {
	d := sdk.Namespace{Name: ns.name, Functions: len(ns.Functions()), Applied: ns.book.Applied()}
	if o := ns.origin; o != nil {
		d.Fork = &sdk.Fork{Of: o.From, At: o.At, Running: o.Running}
	}
	return d
}
