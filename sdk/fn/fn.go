// Package fn is for functions in Go: it serves their calls, and asks the platform for what they need, over one connection to the node instead of
// several of HTTP each. A function without it works just as well; with it a call costs a fraction of the processor time.
//
//	func main() {
//		log.Fatal(fn.Serve(http.HandlerFunc(handle)))
//	}
//
//	func handle(w http.ResponseWriter, r *http.Request) {
//		var n int
//		if _, err := fn.Get(r.Context(), "shared", "n", &n); err != nil { … }
//		if err := fn.Set(r.Context(), "shared", "n", n+1); err != nil { … }
//	}
//
// What is asked for with the context of a call belongs to that call: in an atomic function it is part of its transaction, whichever of several
// calls of the instance it is. Started by hand, without a node, Serve listens on $PORT.
package fn

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync/atomic"
	"time"

	"github.com/quipu-run/quipu/internal/line"
)

// Limits of a function.
const (
	bodyBytesMax = 64 << 20
	redialMax    = time.Second
)

// own is the line to the node; nil while there is none.
var own atomic.Pointer[line.Conn]

type callKey struct{}

// Serve serves calls with h until the node goes, and answers why it cannot go on.
func Serve(h http.Handler) error {
	network, address := "unix", os.Getenv("QUIPU_SOCKET")
	if address == "" {
		network, address = "tcp", "127.0.0.1:"+cmp.Or(os.Getenv("PORT"), "8080")
	}
	within := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callKey{}, r.Header.Get("Quipu-Call-Id"))))
	})
	if door := os.Getenv("QUIPU_LINE"); door != "" {
		if err := connect(door, within); err != nil {
			return err
		}
	}
	l, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	return (&http.Server{Handler: within, ReadHeaderTimeout: time.Minute}).Serve(l)
}

// connect opens the line and keeps one open.
func connect(address string, h http.Handler) error {
	c, err := dial(address, h)
	if err != nil {
		return fmt.Errorf("line to the node at %s: %w", address, err)
	}
	own.Store(c)
	go func() {
		for {
			_ = c.Run() // whose requests were under way has heard
			own.CompareAndSwap(c, nil)
			for wait := 10 * time.Millisecond; ; wait = min(2*wait, redialMax) {
				time.Sleep(wait)
				if c, err = dial(address, h); err == nil {
					break
				}
			}
			own.Store(c)
		}
	}()
	return nil
}

func dial(address string, h http.Handler) (*line.Conn, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	if err := line.Hello(conn, os.Getenv("DAPR_API_TOKEN")); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return line.New(conn, h), nil
}

// Do asks the node, which has Dapr's HTTP API: r needs a path and a query, and no host. It belongs to the call of its context.
func Do(r *http.Request) (*http.Response, error) {
	if id, _ := r.Context().Value(callKey{}).(string); id != "" {
		r.Header.Set("Quipu-Call-Id", id)
	}
	if c := own.Load(); c != nil {
		return c.Do(r)
	}
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host = "http", "127.0.0.1:"+cmp.Or(os.Getenv("DAPR_HTTP_PORT"), "3500")
	r.Header.Set("Dapr-Api-Token", os.Getenv("DAPR_API_TOKEN"))
	return http.DefaultClient.Do(r)
}

// Error is an answer of the node that is no success.
type Error struct {
	Status int
	Code   string `json:"errorCode"`
	Text   string `json:"message"`
}

func (e *Error) Error() string { return fmt.Sprintf("%s (%d): %s", e.Code, e.Status, e.Text) }

// ask sends one request with a body of JSON and answers the body of the reply.
func ask(ctx context.Context, method, path string, in any) ([]byte, error) {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, bodyBytesMax))
	if err != nil || resp.StatusCode < 300 {
		return answer, err
	}
	failed := &Error{Status: resp.StatusCode}
	if json.Unmarshal(answer, failed) != nil || failed.Code == "" {
		failed.Text = string(answer)
	}
	return nil, failed
}

func statePath(store, key string) string {
	return "/v1.0/state/" + url.PathEscape(store) + "/" + url.PathEscape(key)
}

// Get reads a key of a state store into v, and tells whether it is there. v nil only looks.
func Get(ctx context.Context, store, key string, v any) (bool, error) {
	text, err := ask(ctx, http.MethodGet, statePath(store, key), nil)
	if err != nil || len(text) == 0 {
		return false, err
	}
	if v != nil {
		err = json.Unmarshal(text, v)
	}
	return true, err
}

type item struct {
	Key   string `json:"key"`
	Value any    `json:"value"`
}

// Set writes a key of a state store.
func Set(ctx context.Context, store, key string, v any) error {
	_, err := ask(ctx, http.MethodPost, "/v1.0/state/"+url.PathEscape(store), []item{{key, v}})
	return err
}

// Delete removes a key of a state store.
func Delete(ctx context.Context, store, key string) error {
	_, err := ask(ctx, http.MethodDelete, statePath(store, key), nil)
	return err
}

// Publish publishes an event to a topic of the component pubsub.
func Publish(ctx context.Context, topic string, data any) error {
	_, err := ask(ctx, http.MethodPost, "/v1.0/publish/pubsub/"+url.PathEscape(topic), data)
	return err
}

// Invoke calls another function with POST and reads its reply into out, unless that is nil.
func Invoke(ctx context.Context, function, path string, in, out any) error {
	text, err := ask(ctx, http.MethodPost, "/v1.0/invoke/"+url.PathEscape(function)+"/method"+path, in)
	if err == nil && out != nil {
		err = json.Unmarshal(text, out)
	}
	return err
}
