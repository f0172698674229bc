package jwks

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quipu-run/quipu/internal/component"
	"github.com/quipu-run/quipu/xtest"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func withKey(id string) string {
	return fmt.Sprintf(`{"keys":[{"kty":"oct","kid":%q,"k":"AAAA"}]}`, id)
}

func has(t *testing.T, s *Source, id string) {
	t.Helper()
	set, err := s.Set(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := set.LookupKeyID(id); !ok || set.Len() != 1 {
		t.Errorf("there is no key %s", id)
	}
}

func TestASetOnTheWebIsReadAgainWhenItIsOldAndKeptWhenItIsGone(t *testing.T) {
	var answer atomic.Value
	var asked atomic.Int32
	answer.Store(withKey("1"))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		fmt.Fprint(w, answer.Load())
	}))
	defer s.Close()
	clock := xtest.NewClock(start)
	source, err := Open(context.Background(), component.Host{Clock: clock}, s.URL, 0, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	answer.Store(withKey("2"))
	has(t, source, "1")
	clock.Move(time.Minute - 1)
	has(t, source, "1")
	clock.Move(1)
	has(t, source, "2")
	answer.Store("broken")
	clock.Move(time.Minute)
	has(t, source, "2")
	has(t, source, "2")
	if n := asked.Load(); n != 3 {
		t.Errorf("the server was asked %d times", n)
	}
}

func TestAFileIsReadAgainWhenItHasChanged(t *testing.T) {
	h := component.Host{Dir: t.TempDir(), Clock: xtest.NewClock(start)}
	write := func(id string) {
		if err := os.WriteFile(filepath.Join(h.Dir, "set"), []byte(withKey(id)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("1")
	source, err := Open(context.Background(), h, "set", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	has(t, source, "1")
	write("another")
	has(t, source, "another")
}

func TestWhatIsNoSetIsRefusedAndNotTold(t *testing.T) {
	long := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/missing" {
			w.WriteHeader(http.StatusNotFound)
		}
		fmt.Fprint(w, strings.Repeat(" ", bytesMax), withKey("1"))
	}))
	defer long.Close()
	for where, why := range map[string]string{"hunter2": "no address", `{"keys":"hunter2"}`: "no address", long.URL: "more than", long.URL + "/missing": "404"} {
		_, err := Open(context.Background(), component.Host{Clock: xtest.NewClock(start)}, where, 0, 0)
		if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", where, err)
		}
	}
}
