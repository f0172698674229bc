package bindings

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/component"
	"github.com/quipu-run/quipu/test/fake"
	"github.com/quipu-run/quipu/xtest"
)

// oneStore is a state with the one store that is asked for, which remembers how long keys live.
type oneStore struct {
	quipu.State
	name  string
	clock quipu.Clock
	mu    sync.Mutex
	ends  map[string]int64
}

func (s *oneStore) Get(ctx context.Context, store string, keys ...string) ([]quipu.Item, error) {
	if store != s.name {
		return nil, fmt.Errorf("asked for store %s", store)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	items, err := s.State.Get(ctx, quipu.StoreShared, keys...)
	for i := range items {
		items[i].Expires = s.ends[items[i].Key]
	}
	return items, err
}

func (s *oneStore) Apply(ctx context.Context, store string, changes []quipu.Change) error {
	if store != s.name {
		return fmt.Errorf("asked for store %s", store)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.State.Apply(ctx, quipu.StoreShared, changes); err != nil {
		return err
	}
	for _, c := range changes {
		delete(s.ends, c.Key)
		if c.TTL != 0 {
			s.ends[c.Key] = s.clock.Now().Add(c.TTL).UnixNano()
		}
	}
	return nil
}

func openKeys(t *testing.T) (any, *oneStore) {
	clock := xtest.NewClock(start)
	s := &oneStore{State: fake.New().State("app"), name: "binding:door", clock: clock, ends: map[string]int64{}}
	return load(t, component.Host{State: s, Clock: clock}, "bindings.redis", component.Metadata{"redisHost": "nobody:6379"}), s
}

func TestTheRedisBindingHasKeysOnTheLog(t *testing.T) {
	b, s := openKeys(t)
	key := map[string]string{"key": "k"}
	do := func(operation, data string, metadata map[string]string) string {
		t.Helper()
		reply, err := invoke(b, operation, data, metadata)
		if err != nil {
			t.Fatalf("%s: %v", operation, err)
		}
		return string(reply.Data)
	}
	if got := do("get", "", key); got != "" {
		t.Errorf("a key that is not there is %q", got)
	}
	do("create", "v", map[string]string{"key": "k", "ttlInSeconds": "9"})
	if got := do("get", "", key); got != "v" || s.ends["k"] != start.Add(9*time.Second).UnixNano() {
		t.Errorf("the key is %q until %d", got, s.ends["k"])
	}
	if _, err := invoke(b, "increment", "", key); err == nil {
		t.Error("text was counted up")
	}
	if got := do("get", "", map[string]string{"key": "k", "delete": "true"}); got != "v" {
		t.Errorf("taken away: %q", got)
	}
	if got := do("get", "", key); got != "" {
		t.Errorf("after it was taken away there is %q", got)
	}
	do("create", "x", key)
	do("delete", "", key)
	if got := do("get", "", key); got != "" {
		t.Errorf("a deleted key is %q", got)
	}
	for _, bad := range []map[string]string{nil, {"key": "k", "ttlInSeconds": "soon"}} {
		if _, err := invoke(b, "create", "", bad); err == nil {
			t.Errorf("%v was accepted", bad)
		}
	}
	if _, err := invoke(b, "keys", "", key); err == nil {
		t.Error("an operation that there is not was accepted")
	}
}

func TestNoIncrementIsLostAndTheKeyEndsWhenItWouldHave(t *testing.T) {
	b, s := openKeys(t)
	if _, err := invoke(b, "create", "0", map[string]string{"key": "n", "ttlInSeconds": "60"}); err != nil {
		t.Fatal(err)
	}
	const callers, each = 4, 25
	var wg sync.WaitGroup
	failed := make(chan error, callers*each)
	for range callers {
		wg.Go(func() {
			for range each {
				if _, err := invoke(b, "increment", "", map[string]string{"key": "n"}); err != nil {
					failed <- err
				}
			}
		})
	}
	wg.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
	reply, err := invoke(b, "get", "", map[string]string{"key": "n"})
	if err != nil || string(reply.Data) != strconv.Itoa(callers*each) {
		t.Errorf("counted to %s, %v", reply.Data, err)
	}
	if s.ends["n"] != start.Add(time.Minute).UnixNano() {
		t.Errorf("the key ends at %v", time.Unix(0, s.ends["n"]).UTC())
	}
}
