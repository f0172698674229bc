package pluggable

import (
	"context"
	"errors"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	proto "github.com/dapr/dapr/pkg/proto/components/v1"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/clock"
	"github.com/quipu-run/quipu/internal/component"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// folder is a short one: the path of a socket has at most a hundred bytes or so.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "q")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func discover(t *testing.T, dir string) map[string]component.Factory {
	t.Helper()
	all, err := Discover(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// load makes a component and closes it in the end.
func load[Block any](t *testing.T, dir, kind string, m component.Metadata) Block {
	t.Helper()
	settings := component.Metadata{"secret": "s"}
	maps.Copy(settings, m)
	is, err := discover(t, dir)[kind](t.Context(), component.Host{Clock: &clock.Wall{}}, component.Spec{Name: "mine", Type: kind, Metadata: settings})
	if err != nil {
		t.Fatal(err)
	}
	set := component.NewSet(component.Loaded{Spec: component.Spec{Name: "mine"}, Is: is})
	t.Cleanup(func() {
		if err := set.Close(); err != nil {
			t.Error(err)
		}
	})
	block, ok := component.Of[Block](set, "mine")
	if !ok {
		t.Fatalf("%s is %T", kind, is)
	}
	return block
}

// eventually waits until what is asked for is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func (p *program) ack(id string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.acks[id]
}

func TestSocketsAreFoundByWhatTheyServe(t *testing.T) {
	dir := folder(t)
	start(t, dir, "all")
	start(t, dir, "out", onlyOutput)
	if err := os.WriteFile(filepath.Join(dir, "file.sock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want := []string{"bindings.all", "bindings.out", "pubsub.all", "secretstores.all", "state.all"}
	if got := slices.Sorted(maps.Keys(discover(t, dir))); !slices.Equal(got, want) {
		t.Errorf("found %v", got)
	}
	t.Setenv(FolderVariable, dir)
	if got := discover(t, ""); len(got) != len(want) {
		t.Errorf("by the environment there are %d", len(got))
	}
	if got, err := Discover(t.Context(), filepath.Join(dir, "nowhere")); err != nil || len(got) != 0 {
		t.Errorf("in no folder: %v, %v", got, err)
	}
}

func TestAProgramThatKnowsTheOlderReflectionOnlyIsFound(t *testing.T) {
	dir := folder(t)
	p := &program{socket: filepath.Join(dir, "old.sock"), old: true}
	p.serve(t, onlyOutput)
	if all := discover(t, dir); len(all) != 1 || all["bindings.old"] == nil {
		t.Errorf("found %v", slices.Collect(maps.Keys(all)))
	}
}

func TestASocketThatNobodyListensAtDoesNotHideTheOthers(t *testing.T) {
	dir := folder(t)
	start(t, dir, "out", onlyOutput)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "left.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	all, err := Discover(t.Context(), dir)
	if err == nil || !strings.Contains(err.Error(), "left.sock") || all["bindings.out"] == nil {
		t.Errorf("found %v, %v", all, err)
	}
}

func TestAStateStoreOfOthersIsAStateStore(t *testing.T) {
	dir := folder(t)
	p := start(t, dir, "mem")
	store := load[component.State](t, dir, "state.mem", nil)
	s, ctx := store.Foreign, t.Context()
	if store.Store != "mine" || !slices.Equal(s.(interface{ Features() []string }).Features(), []string{"ETAG", "TRANSACTIONAL"}) {
		t.Errorf("%+v", store)
	}
	get := func(keys ...string) []quipu.Item {
		t.Helper()
		items, err := s.Get(ctx, "mine", keys...)
		if err != nil {
			t.Fatal(err)
		}
		return items
	}
	apply := func(want quipu.Code, changes ...quipu.Change) {
		t.Helper()
		if err := s.Apply(ctx, "mine", changes); quipu.CodeOf(err) != want {
			t.Errorf("%+v: %v", changes, err)
		}
	}
	if i := get("a")[0]; i.Exists() {
		t.Errorf("there is %+v", i)
	}
	apply("", quipu.Change{Key: "a", Value: []byte("1"), TTL: 1500 * time.Millisecond})
	first := get("a")[0]
	if string(first.Value) != "1" || first.ETag != "1" || first.Expires != epoch.Add(2*time.Second).UnixNano() {
		t.Errorf("%+v", first)
	}
	apply(quipu.CodeETag, quipu.Change{Key: "a", ETag: "99", Value: []byte("2")})
	apply(quipu.CodeETag, quipu.Change{Key: "a", FirstWrite: true, Value: []byte("2")})
	apply(quipu.CodeETagForm, quipu.Change{Key: "a", ETag: "x", Delete: true})
	apply("", quipu.Change{Key: "a", ETag: first.ETag, Value: []byte("2")})
	apply(quipu.CodeETag, quipu.Change{Key: "b", Value: []byte("b")}, quipu.Change{Key: "a", Delete: true, ETag: "1"})
	if i := get("b", "a", "c"); i[0].Exists() || string(i[1].Value) != "2" || i[2].Exists() || i[2].Key != "c" {
		t.Errorf("after a transaction that failed: %+v", i)
	}
	apply("", quipu.Change{Key: "b", Value: []byte("b")}, quipu.Change{Key: "a", Delete: true})
	if i := get("a", "b"); i[0].Exists() || string(i[1].Value) != "b" {
		t.Errorf("after a transaction: %+v", i)
	}
	apply(quipu.CodeTxSize, make([]quipu.Change, 4)...)
	if _, err := s.List(ctx, "mine", quipu.ListRequest{}); quipu.CodeOf(err) != quipu.CodeUsage || !strings.Contains(err.Error(), "state.mem") {
		t.Errorf("a listing: %v", err)
	}
	if p.mu.Lock(); !p.ids["mine"] || p.inited["state"]["secret"] != "s" {
		t.Errorf("asked by %v, initialized with %v", p.ids, p.inited)
	}
	p.mu.Unlock()
}

func TestAStoreWithoutETagsAndTransactionsSaysThatKeysAreThere(t *testing.T) {
	dir := folder(t)
	start(t, dir, "plain", plainState)
	s, ctx := load[component.State](t, dir, "state.plain", nil).Foreign, t.Context()
	if err := s.Apply(ctx, "", []quipu.Change{{Key: "a", Value: []byte("1")}, {Key: "b", Value: []byte("2")}}); err != nil {
		t.Fatal(err)
	}
	items, err := s.Get(ctx, "", "a")
	if err != nil || !items[0].Exists() {
		t.Fatalf("%+v, %v", items, err)
	}
	if err := s.Apply(ctx, "", []quipu.Change{{Key: "a", Delete: true, ETag: items[0].ETag}, {Key: "c", Value: []byte("3")}}); err != nil {
		t.Errorf("with the etag that it told: %v", err)
	}
	if items, err := s.Get(ctx, "", "a"); err != nil || items[0].Exists() {
		t.Errorf("%+v, %v", items, err)
	}
}

func TestAProgramThatWasRestartedIsInitializedBeforeItIsAsked(t *testing.T) {
	dir := folder(t)
	p := start(t, dir, "mem")
	s := load[component.State](t, dir, "state.mem", nil).Foreign
	for range 3 {
		if err := s.Apply(t.Context(), "", []quipu.Change{{Key: "a", Value: []byte("1")}}); err != nil {
			t.Fatal(err)
		}
		p.restart(t)
		eventually(t, "an answer", func() bool {
			items, err := s.Get(t.Context(), "", "a")
			if err != nil && strings.Contains(err.Error(), "not initialized") {
				t.Fatal(err)
			}
			return err == nil && items[0].Exists()
		})
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.inits < 4 {
		t.Errorf("initialized %d times", p.inits)
	}
}

func TestAProgramThatRefusesOrIsGoneIsAnError(t *testing.T) {
	dir := folder(t)
	p := start(t, dir, "mem")
	factory := discover(t, dir)["state.mem"]
	h := component.Host{Clock: &clock.Wall{}}
	if _, err := factory(t.Context(), h, component.Spec{Metadata: component.Metadata{"fail": "yes"}}); err == nil || !strings.Contains(err.Error(), "it must not fail") {
		t.Errorf("a refusal: %v", err)
	}
	p.server.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := factory(ctx, h, component.Spec{Name: "mine"}); err == nil || !strings.Contains(err.Error(), "component mine") {
		t.Errorf("nobody: %v", err)
	}
}

func TestAPubSubOfOthersDeliversUntilItIsAcknowledgedAlsoAfterARestart(t *testing.T) {
	dir := folder(t)
	p := start(t, dir, "bus")
	bus := load[component.PubSub](t, dir, "pubsub.bus", component.Metadata{"consumerID": "us"})
	if bus.Consumer != "us" || !slices.Equal(bus.Foreign.Features(), []string{"MESSAGE_TTL"}) {
		t.Errorf("%+v", bus)
	}
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan component.ForeignMessage, 10)
	ended := make(chan error, 1)
	failures := 1
	go func() {
		ended <- bus.Foreign.Subscribe(ctx, "t", nil, func(_ context.Context, m component.ForeignMessage) error {
			if failures > 0 {
				failures--
				return errors.New("not now")
			}
			got <- m
			return nil
		})
	}()
	publish := func(text string) {
		t.Helper()
		m := component.ForeignMessage{Topic: "t", Data: []byte(text), ContentType: "text/plain", Metadata: map[string]string{"k": "v"}}
		eventually(t, "to publish", func() bool { return bus.Foreign.Publish(t.Context(), m) == nil })
	}
	publish("1")
	if m := <-got; string(m.Data) != "1" || m.Topic != "t" || m.ContentType != "text/plain" || m.Metadata["k"] != "v" {
		t.Errorf("%+v", m)
	}
	eventually(t, "two answers", func() bool { return p.ack("m-1") == "[not now][]" })
	p.restart(t)
	publish("2")
	if m := <-got; string(m.Data) != "2" {
		t.Errorf("after a restart %+v", m)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
}

func TestBindingsOfOthersReadAndInvoke(t *testing.T) {
	dir := folder(t)
	p := start(t, dir, "both")
	out := load[component.OutputBinding](t, dir, "bindings.both", nil)
	in := out.(component.InputBinding)
	if !slices.Equal(out.Operations(), []string{"create", "shout"}) {
		t.Errorf("operations %v", out.Operations())
	}
	reply, err := out.Invoke(t.Context(), component.BindingRequest{Operation: "shout", Data: []byte("hi"), Metadata: map[string]string{"a": "b"}})
	if err != nil || string(reply.Data) != "hi!" || reply.Metadata["a"] != "b" {
		t.Errorf("%+v, %v", reply, err)
	}
	if _, err := out.Invoke(t.Context(), component.BindingRequest{Operation: "create"}); err == nil || !strings.Contains(err.Error(), "only shouts") {
		t.Errorf("an operation that fails: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- in.Read(ctx, func(_ context.Context, e component.BindingEvent) ([]byte, error) {
			if string(e.Data) == "bad" {
				return nil, errors.New("it is bad")
			}
			return append(e.Data, e.ContentType+e.Metadata["k"]...), nil
		})
	}()
	p.events <- &proto.ReadResponse{MessageId: "1", Data: []byte("good"), ContentType: "text/plain", Metadata: map[string]string{"k": "v"}}
	p.events <- &proto.ReadResponse{MessageId: "2", Data: []byte("bad")}
	eventually(t, "two answers", func() bool { return p.ack("1") == "[goodtext/plainv]" && p.ack("2") == "[it is bad]" })
	p.restart(t)
	p.events <- &proto.ReadResponse{MessageId: "3", Data: []byte("again")}
	eventually(t, "an answer after a restart", func() bool { return p.ack("3") == "[again]" })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
}

func TestADirectionLeavesTheOtherOut(t *testing.T) {
	dir := folder(t)
	start(t, dir, "both")
	start(t, dir, "out", onlyOutput)
	out := load[component.OutputBinding](t, dir, "bindings.both", component.Metadata{"direction": "output"})
	if _, reads := out.(component.InputBinding); reads {
		t.Error("an output binding reads")
	}
	in := load[component.InputBinding](t, dir, "bindings.both", component.Metadata{"direction": "input"})
	if _, invokes := in.(component.OutputBinding); invokes {
		t.Error("an input binding can be invoked")
	}
	_, err := discover(t, dir)["bindings.out"](t.Context(), component.Host{Clock: &clock.Wall{}}, component.Spec{Metadata: component.Metadata{"direction": "input"}})
	if err == nil {
		t.Error("a program without an input binding made one")
	}
}

func TestASecretStoreOfOthersIsASecretStore(t *testing.T) {
	dir := folder(t)
	start(t, dir, "vault")
	s := load[component.SecretStore](t, dir, "secretstores.vault", nil)
	if got, err := s.Secret(t.Context(), "db", nil); err != nil || !maps.Equal(got, map[string]string{"user": "u"}) {
		t.Errorf("%v, %v", got, err)
	}
	for _, missing := range []string{"none", "empty"} {
		if got, err := s.Secret(t.Context(), missing, nil); err != nil || got != nil {
			t.Errorf("%s: %v, %v", missing, got, err)
		}
	}
	if _, err := s.Secret(t.Context(), "broken", nil); err == nil {
		t.Error("a failure is no secret")
	}
	if all, err := s.Secrets(t.Context(), nil); err != nil || all["db"]["user"] != "u" {
		t.Errorf("%v, %v", all, err)
	}
}
