package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/quipu-run/quipu/sdk"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// replyBytesMax bounds what is read of one reply.
const replyBytesMax = 16 << 20

// startMax is how long an application may take until the node has heard it.
const startMax = 30 * time.Second

// application is one of the node, which may use what its resource files declare, by either protocol.
type application struct {
	rtv1.DaprClient
	conn  *grpc.ClientConn
	http  string // where Dapr's API is
	token string
	gone  func() // takes it away, and waits for that
}

// program is a server of an application; none for one that only calls.
type program struct {
	port     int
	protocol string
}

// attach makes an application part of the node, and returns when it is heard. It stays until its test ends or gone is
// called.
func attach(t testing.TB, node *sdk.Client, id string, p program, resources map[string]string, dir string) (*application, error) {
	ctx, cancel := context.WithCancel(context.Background())
	if p.protocol == "" {
		p.protocol = "http"
	}
	is := make(chan sdk.Attached, 8)
	var running sync.WaitGroup
	var failed error // read when is is closed
	running.Go(func() {
		defer close(is)
		for now, err := range node.Attach(ctx, id, sdk.Attachment{Port: p.port, Protocol: p.protocol, Resources: resources, Dir: dir, Env: environment()}) {
			if err != nil {
				failed = err
				return
			}
			is <- now
		}
	})
	gone := sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(gone)
	until := sdk.AttachedOpen
	if p.port != 0 {
		until = sdk.AttachedListening
	}
	a, late := &application{gone: gone}, time.After(startMax)
	for {
		select {
		case now, ok := <-is:
			if !ok {
				return nil, failed
			}
			if now.Warning != "" {
				return nil, errors.New(now.Warning)
			}
			if now.State == sdk.AttachedOpen {
				if err := a.dial(t, now); err != nil {
					return nil, err
				}
			}
			if now.State == until {
				return a, nil
			}
		case <-late:
			return nil, fmt.Errorf("application %s is not heard after %v", id, startMax)
		}
	}
}

// environment is what quipu run would tell of ours.
func environment() map[string]string {
	all := map[string]string{}
	for _, variable := range os.Environ() {
		name, value, _ := strings.Cut(variable, "=")
		all[name] = value
	}
	return all
}

// dial connects an application to the listeners that are its own.
func (a *application) dial(t testing.TB, is sdk.Attached) error {
	a.http, a.token = "http://127.0.0.1:"+is.DaprHTTP, is.Token
	conn, err := grpc.NewClient("127.0.0.1:"+is.DaprGRPC, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, in, out any, conn *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return next(a.known(ctx), method, in, out, conn, opts...)
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, what *grpc.StreamDesc, conn *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return next(a.known(ctx), what, conn, method, opts...)
		}))
	if err != nil {
		return err
	}
	t.Cleanup(func() { _ = conn.Close() })
	a.conn, a.DaprClient = conn, rtv1.NewDaprClient(conn)
	return nil
}

func (a *application) known(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "dapr-api-token", a.token)
}

// refusal is an answer of Dapr's API over HTTP that is no success.
type refusal struct {
	status int
	Code   string `json:"errorCode"`
	Text   string `json:"message"`
}

func (r *refusal) Error() string { return fmt.Sprintf("%d %s: %s", r.status, r.Code, r.Text) }

// do asks Dapr's API over HTTP. body is JSON, unless it is bytes.
func (a *application) do(ctx context.Context, method, path string, header http.Header, body any) (*http.Response, []byte, error) {
	raw, ok := body.([]byte)
	if !ok && body != nil {
		var err error
		if raw, err = json.Marshal(body); err != nil {
			return nil, nil, err
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, a.http+path, bytes.NewReader(raw))
	if err != nil {
		return nil, nil, err
	}
	r.Header.Set("dapr-api-token", a.token)
	r.Header.Set("Content-Type", "application/json")
	for name, values := range header {
		r.Header[http.CanonicalHeaderKey(name)] = values
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, replyBytesMax))
	if err == nil && resp.StatusCode >= 300 {
		no := &refusal{status: resp.StatusCode}
		if json.Unmarshal(answer, no) != nil {
			no.Text = string(answer)
		}
		err = no
	}
	return resp, answer, err
}

// ask is do, with an answer of JSON.
func (a *application) ask(ctx context.Context, method, path string, body, answer any) error {
	resp, text, err := a.do(ctx, method, path, nil, body)
	if err == nil && answer != nil && resp.StatusCode != http.StatusNoContent {
		err = json.Unmarshal(text, answer)
	}
	return err
}

// about is a query with Dapr's metadata in it.
func about(all map[string]string) string {
	q := url.Values{}
	for name, value := range all {
		q.Set("metadata."+name, value)
	}
	return "?" + q.Encode()
}

// web is an application that speaks HTTP.
func web(t testing.TB, h http.Handler) program {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return program{port: number(t, port), protocol: "http"}
}

// rpc is an application that speaks gRPC.
func rpc(t testing.TB, register func(*grpc.Server)) program {
	s := grpc.NewServer()
	register(s)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := s.Serve(l); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { s.Stop(); serving.Wait() })
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return program{port: number(t, port), protocol: "grpc"}
}

func number(t testing.TB, text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
