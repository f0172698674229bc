package fn

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/contract/line"
	"github.com/quipu-run/quipu/gateway/dapr"
	"github.com/quipu-run/quipu/internal/clock"
	"github.com/quipu-run/quipu/test/fake"
)

// elsewhere is the function as it is without a line.
type elsewhere struct{}

func (elsewhere) Do(*http.Request) (*http.Response, error) { return nil, errors.New("over HTTP") }
func (elsewhere) Close()                                   {}

// door is a node's end of a line, with the Dapr API of a namespace in memory behind it.
func door(t *testing.T, ns *fake.Namespace) (*line.Door, string) {
	t.Helper()
	api := dapr.New(dapr.Options{Token: "secret", RequireToken: true, Logger: slog.New(slog.DiscardHandler), Clock: &clock.Wall{},
		Session: func(*http.Request) (quipu.Session, error) { return ns.Session("f"), nil }})
	d := line.New("secret", api)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go d.Serve(l) // ends with Close
	t.Cleanup(d.Close)
	return d, l.Addr().String()
}

func call(t *testing.T, c line.Client, body string) (int, string, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "POST", "/", bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Quipu-Call-Id", "call-1")
	resp, err := c.Do(r)
	if err != nil {
		return 0, "", err
	}
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

func TestAFunctionIsCalledAndAsksOverItsLine(t *testing.T) {
	ns := fake.New()
	ns.Add(fake.HTTP("other", "/"), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"n":7}`) }))
	d, address := door(t, ns)
	t.Setenv("DAPR_API_TOKEN", "secret")
	t.Cleanup(func() { own.Store(nil) })
	err := connect(address, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		var n int
		var other struct{ N int }
		there, err := Get(ctx, "shared", "a/b", &n)
		err = errors.Join(err, Set(ctx, "shared", "a/b", n+1), Publish(ctx, "orders", map[string]int{"id": 7}), Invoke(ctx, "other", "/", nil, &other))
		if err != nil || other.N != 7 {
			http.Error(w, "it failed", http.StatusInternalServerError)
			t.Errorf("%v %v", err, other)
			return
		}
		if there {
			err = Delete(ctx, "shared", "a/b")
		}
		_, problem := Get(ctx, "none", "k", nil)
		var failed *Error
		if err != nil || !errors.As(problem, &failed) || failed.Code == "" {
			t.Errorf("%v %v", err, problem)
		}
		io.WriteString(w, "done")
	}))
	if err != nil {
		t.Fatal(err)
	}
	c := line.Client{App: elsewhere{}, Door: d}
	for round, want := range []string{"1", ""} {
		for { // until the node has taken the line up, it would call over HTTP
			status, text, err := call(t, c, "x")
			if err != nil && strings.Contains(err.Error(), "over HTTP") {
				continue
			}
			if status != 200 || text != "done" || err != nil {
				t.Fatalf("%d %q %v", status, text, err)
			}
			break
		}
		items, err := ns.State("").Get(t.Context(), quipu.StoreShared, "a/b")
		if err != nil || string(items[0].Value) != want {
			t.Errorf("round %d: %q %v, want %q", round, items[0].Value, err, want)
		}
	}
}

func TestWhoDoesNotKnowTheTokenGetsNoCalls(t *testing.T) {
	d, address := door(t, fake.New())
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("\x0a\x00\x00\x00\x01\x00\x00\x00\x00wrong")); err != nil { // a hello, as docs/reference/line.md has it
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("the connection stays: %d %v", n, err)
	}
	if _, _, err := call(t, line.Client{App: elsewhere{}, Door: d}, ""); err == nil || err.Error() != "over HTTP" {
		t.Error(err)
	}
}
