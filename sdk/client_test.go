package sdk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/gateway"
	"github.com/quipu-run/quipu/sdk"
	"github.com/quipu-run/quipu/test/fake"
)

// open is a client of a gateway before a namespace in memory.
func open(t *testing.T, token string) (*sdk.Client, *fake.Namespace) {
	t.Helper()
	ns := fake.New()
	gw := gateway.New(gateway.Options{Token: "secret", Node: func() sdk.Node { return sdk.Node{Version: "v7"} },
		Namespaces: func(string) (gateway.Namespace, error) { return ns, nil }})
	srv := httptest.NewServer(gw)
	t.Cleanup(srv.Close)
	c, err := sdk.New(sdk.Options{URL: srv.URL, Token: token, Namespace: sdk.NamespaceDefault})
	must(t, err)
	return c, ns
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestStateThroughTheClientIsTheNodesState(t *testing.T) {
	c, _ := open(t, "secret")
	state := c.State(quipu.StoreDefault, "hello")
	key, value := "a/../b//c %2F?#é", []byte{0, 255, '\n'}
	must(t, state.Apply(t.Context(), quipu.Change{Key: key, Value: value, TTL: 1500 * time.Millisecond, FirstWrite: true}))
	item, err := state.Get(t.Context(), key)
	must(t, err)
	if !bytes.Equal(item.Value, value) || item.Expires != fake.Epoch.Add(2*time.Second).UnixNano() {
		t.Errorf("read %+v", item)
	}
	err = state.Apply(t.Context(), quipu.Change{Key: key, Value: value, FirstWrite: true})
	if !errors.Is(err, &quipu.Error{Code: quipu.CodeETag}) {
		t.Errorf("a second first write: %v", err)
	}
	must(t, state.Apply(t.Context(), quipu.Change{Key: key, Value: []byte("2"), ETag: item.ETag}))
	must(t, state.Apply(t.Context(), quipu.Change{Key: "z"}))
	page, err := state.List(t.Context(), quipu.ListRequest{Limit: 1})
	if err != nil || len(page.Items) != 1 || page.Items[0].Key != key || page.Next != key {
		t.Errorf("listed %+v, %v", page, err)
	}
	must(t, state.Apply(t.Context(), quipu.Change{Key: key, Delete: true}))
	if _, err = state.Get(t.Context(), key); quipu.CodeOf(err) != quipu.CodeNotFound {
		t.Errorf("a deleted key: %v", err)
	}
	if _, err = state.Get(t.Context(), ""); quipu.CodeOf(err) != quipu.CodeKey {
		t.Errorf("an empty key: %v", err)
	}
}

func TestErrorsComeBackAsTheNodeMadeThem(t *testing.T) {
	c, ns := open(t, "secret")
	want := &quipu.Error{Code: quipu.CodeManifest, Text: "quipu.yaml:3: no field foo", Hint: "remove it", Seq: 9}
	ns.OnDeploy = func(string, []byte) ([]quipu.Function, error) { return nil, want }
	_, err := c.Deploy(t.Context(), "app", []byte("x"))
	var got *quipu.Error
	if !errors.As(err, &got) || *got != *want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	stranger, _ := open(t, "wrong")
	if _, err := stranger.Node(t.Context()); quipu.CodeOf(err) != quipu.CodeToken {
		t.Errorf("a wrong token: %v", err)
	}
}

func TestWhatIsNoNodeIsCalledSo(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"another program": http.NotFound,
		"a web page":      func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
		"one that breaks": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		srv := httptest.NewServer(h)
		c, err := sdk.New(sdk.Options{URL: srv.URL})
		must(t, err)
		if _, err := c.Functions(t.Context()); quipu.CodeOf(err) != quipu.CodeNoNode {
			t.Errorf("%s: %v", name, err)
		}
		srv.Close()
	}
	for _, bad := range []string{"", "ftp://x", "http://", "::"} {
		if _, err := sdk.New(sdk.Options{URL: bad}); quipu.CodeOf(err) != quipu.CodeUsage {
			t.Errorf("URL %q: %v", bad, err)
		}
	}
}

func TestInvokeGivesTheFunctionsReplyWhateverItsStatus(t *testing.T) {
	c, ns := open(t, "secret")
	ns.Add(fake.HTTP("f", "/f"), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "mine", http.StatusNotFound) }))
	resp, err := c.Invoke(t.Context(), "f", http.MethodPost, "/x", nil, nil)
	must(t, err)
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != 404 || string(text) != "mine\n" {
		t.Errorf("%d %q", resp.StatusCode, text)
	}
	if _, err := c.Invoke(t.Context(), "g", http.MethodPost, "/x", nil, nil); quipu.CodeOf(err) != quipu.CodeNoFunction {
		t.Errorf("an unknown function: %v", err)
	}
}

func TestTailYieldsRecordsUntilTheContextEnds(t *testing.T) {
	c, ns := open(t, "secret")
	ns.Book.Put("quipu/default", "one")
	ctx, cancel := context.WithCancel(t.Context())
	var got []string
	for rec, err := range c.TailBook(ctx, "quipu/default", sdk.ReadRequest{From: "0"}) {
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("ended with %v", err)
			}
			break
		}
		if got = append(got, string(rec.Data)); len(got) == 1 {
			ns.Book.Put("quipu/default", "two")
		} else {
			cancel()
		}
	}
	cancel()
	if fmt.Sprint(got) != "[one two]" {
		t.Errorf("got %v", got)
	}
}

func TestVerifyEndsWithTheVerdict(t *testing.T) {
	c, ns := open(t, "secret")
	ns.Book.Put("b", "x")
	var last sdk.Progress
	must(t, c.VerifyBook(t.Context(), "b", func(p sdk.Progress) { last = p }))
	if last.Done != 100 || !last.OK {
		t.Errorf("last: %+v", last)
	}
	ns.OnVerify = &quipu.Error{Code: quipu.CodeCorrupt, Text: "bad"}
	if err := c.VerifyBook(t.Context(), "b", func(sdk.Progress) {}); quipu.CodeOf(err) != quipu.CodeCorrupt {
		t.Errorf("corrupt: %v", err)
	}
}
