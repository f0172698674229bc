package line

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// pair is a line whose ends answer with the given handlers.
func pair(t *testing.T, left, right http.HandlerFunc) (*Conn, *Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	x, y := New(a, left), New(b, right)
	var running sync.WaitGroup
	running.Go(func() { x.Run() })
	running.Go(func() { y.Run() })
	t.Cleanup(func() {
		x.Close()
		y.Close()
		running.Wait()
	})
	return x, y
}

func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Saw", r.Method+" "+r.URL.EscapedPath()+"?"+r.URL.RawQuery+" "+r.Header.Get("Name"))
	if r.URL.Path == "/teapot" {
		w.WriteHeader(http.StatusTeapot)
	}
	io.Copy(w, r.Body)
}

func ask(ctx context.Context, c *Conn, method, path, body string) (int, string, http.Header, error) {
	r, err := http.NewRequestWithContext(ctx, method, path, strings.NewReader(body))
	if err != nil {
		return 0, "", nil, err
	}
	r.Header.Set("Name", "value")
	resp, err := c.Do(r)
	if err != nil {
		return 0, "", nil, err
	}
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), resp.Header, err
}

func TestBothEndsAskAndAnswerManyAtATime(t *testing.T) {
	x, y := pair(t, echo, echo)
	var all sync.WaitGroup
	for i := range 400 {
		all.Go(func() {
			from := []*Conn{x, y}[i%2]
			body := strings.Repeat(fmt.Sprint(i), i*20)
			status, text, header, err := ask(t.Context(), from, "PUT", fmt.Sprintf("/a%%2Fb/%d?q=%d", i, i), body)
			if err != nil || status != 200 || text != body || header.Get("Saw") != fmt.Sprintf("PUT /a%%2Fb/%d?q=%d value", i, i) {
				t.Errorf("%d: %d %v %q, %d bytes", i, status, err, header.Get("Saw"), len(text))
			}
		})
	}
	all.Wait()
	if status, _, _, err := ask(t.Context(), x, "GET", "/teapot", ""); status != http.StatusTeapot || err != nil {
		t.Errorf("%d %v", status, err)
	}
}

func TestAHandlerMayAskBackWhileItAnswers(t *testing.T) {
	var y *Conn
	x, other := pair(t, echo, func(w http.ResponseWriter, r *http.Request) {
		status, text, _, err := ask(r.Context(), y, "POST", "/back", "inner")
		fmt.Fprint(w, status, text, err)
	})
	y = other
	if _, text, _, err := ask(t.Context(), x, "GET", "/", ""); err != nil || text != "200inner<nil>" {
		t.Errorf("%q %v", text, err)
	}
}

func TestWhoGivesUpIsHeardAtTheOtherEnd(t *testing.T) {
	began, ended := make(chan struct{}), make(chan struct{})
	x, _ := pair(t, nil, func(_ http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
		close(ended)
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-began
		cancel()
	}()
	if _, _, _, err := ask(ctx, x, "GET", "/", ""); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-ended
}

func TestABrokenLineEndsWhatIsUnderWay(t *testing.T) {
	began := make(chan struct{})
	x, y := pair(t, nil, func(_ http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
	})
	go func() {
		<-began
		y.Close()
	}()
	if _, _, _, err := ask(t.Context(), x, "GET", "/", ""); !errors.Is(err, ErrBroken) {
		t.Error(err)
	}
	if _, _, _, err := ask(t.Context(), y, "GET", "/", ""); !errors.Is(err, ErrBroken) {
		t.Error(err)
	}
}

func TestWhatIsTooLargeIsRefusedAndTheLineGoesOn(t *testing.T) {
	x, _ := pair(t, nil, func(w http.ResponseWriter, r *http.Request) {
		n, err := w.Write(make([]byte, frameBytesMax))
		if err != nil {
			w.WriteHeader(http.StatusInsufficientStorage)
		}
		fmt.Fprint(w, n)
	})
	if _, _, _, err := ask(t.Context(), x, "GET", "/", strings.Repeat("x", frameBytesMax)); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	if _, text, _, err := ask(t.Context(), x, "GET", "/", ""); err != nil || text != "0" {
		t.Error(text, err)
	}
}

func TestAHandlerThatPanicsAnswers500(t *testing.T) {
	x, _ := pair(t, nil, func(http.ResponseWriter, *http.Request) { panic("ouch") })
	for range 2 {
		if status, text, _, err := ask(t.Context(), x, "GET", "/", ""); status != 500 || !strings.Contains(text, "ouch") {
			t.Error(status, text, err)
		}
	}
}

func TestWhoSaysNoHelloIsNotWelcome(t *testing.T) {
	a, b := net.Pipe()
	go func() {
		a.Write(appendReply(nil, 1, 200, nil, nil))
	}()
	if token, err := Welcome(b); err == nil {
		t.Errorf("welcome, %q", token)
	}
	a, b = net.Pipe()
	go Hello(a, "secret")
	if token, err := Welcome(b); token != "secret" || err != nil {
		t.Error(token, err)
	}
}

// Whatever comes in, nothing but an error comes of it.
func FuzzFrames(f *testing.F) {
	r, _ := http.NewRequest("POST", "/a?b", nil)
	r.Header.Set("K", "v")
	f.Add(appendRequest(nil, 1, r, []byte("body")))
	f.Add(appendReply(nil, 1, 200, r.Header, []byte("body")))
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bytes.NewReader(b)
		for {
			fr, err := readFrame(in)
			if err != nil {
				return
			}
			if r, err := fr.request(); err == nil && r.URL == nil {
				t.Fatal("a request without URL")
			}
			fr.reply(nil)
		}
	})
}

func BenchmarkExchange(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	a, _ := net.Dial("tcp", l.Addr().String())
	c, _ := l.Accept()
	x, y := New(a, nil), New(c, http.HandlerFunc(echo))
	go x.Run()
	go y.Run()
	defer x.Close()
	deadline := time.Now().Add(time.Minute)
	ctx, cancel := context.WithDeadline(b.Context(), deadline)
	defer cancel()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, _, _, err := ask(ctx, x, "GET", "/v1.0/state/shared/k", ""); err != nil {
				b.Fatal(err)
			}
		}
	})
}
