package gateway

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
	"github.com/quipu-run/quipu/test/fake"
)

// instant answers without any function, so that only the gateway is measured.
type instant struct{ Namespace }

func (instant) Invoke(context.Context, quipu.CallRequest) (*quipu.CallReply, error) {
	return &quipu.CallReply{Call: "c", Status: 200, Header: http.Header{"Content-Length": {"2"}}, Body: io.NopCloser(strings.NewReader("ok"))}, nil
}

// What the gateway itself adds to a call, of the 0.25 ms that a call may cost.
func BenchmarkCall(b *testing.B) {
	ns := fake.New()
	g := New(Options{Logger: slog.New(slog.DiscardHandler), Node: func() sdk.Node { return sdk.Node{} },
		Namespaces: func(string) (Namespace, error) { return instant{ns}, nil }})
	if err := g.SetRoutes(sdk.NamespaceDefault, []quipu.Function{fake.HTTP("f", "/orders/{id}", "GET"), fake.HTTP("g", "/", "POST")}); err != nil {
		b.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/orders/7?x=1", nil)
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		if g.ServeHTTP(w, r); w.Code != 200 {
			b.Fatal(w.Code)
		}
	}
}
