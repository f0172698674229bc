package gateway

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
	"github.com/quipu-run/quipu/test/fake"
)

// Whatever is sent to the door of books gets an answer that has a code if it is bad, and the platform's book stays as it is.
func FuzzBooks(f *testing.F) {
	for _, name := range []string{"createBook", "changeBook", "trimBook", "getProducer", "appendRecord", "appendBatch", "getRecord", "putAux", "readBook", "deleteBook"} {
		s := samples[name]
		path, query, _ := strings.Cut(strings.TrimPrefix(s.path, "/books"), "?")
		f.Add(s.method, path, query, s.body)
	}
	f.Add("GET", "/quipu%2Fdefault/records", "reverse&to=ffffffffffffffff&limit=1&as=json", "")
	f.Add("POST", "/quipu%2Fdefault/batch", "", `{"records":[{"data":"AA=="}],"producer":{"id":1,"epoch":4294967295,"n":18446744073709551615}}`)
	f.Add("POST", "/raw%2F%C3%A9/records", "if-last==&producer=1.0.1&tag=%FF", "x")
	ns := fake.New()
	ns.Book.Put("quipu/default", "platform")
	ns.Book.Put(oddBook, `{"n":1}`, "a=b")
	tail := ns.Book.Put("quipu/default", "platform")
	gw := New(Options{Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Node: func() sdk.Node { return sdk.Node{} },
		Namespaces: func(string) (Namespace, error) { return ns, nil }})
	f.Fuzz(func(t *testing.T, method, path, query, body string) {
		u, err := url.Parse("http://127.0.0.1" + adminPrefix + "/books" + path)
		if err != nil || strings.HasSuffix(path, "/tail") || strings.Contains(query, "wait") || !strings.HasPrefix(u.Path, adminPrefix+"/books") {
			t.Skip() // no URL, or a reply that waits
		}
		u.RawQuery = query
		r, err := http.NewRequestWithContext(t.Context(), method, "http://127.0.0.1/", strings.NewReader(body))
		if err != nil {
			t.Skip()
		}
		r.URL = u
		w := httptest.NewRecorder()
		gw.ServeHTTP(w, r)
		if w.Code >= 400 && !strings.Contains(w.Body.String(), `"code":"Q`) && method != http.MethodHead || strings.Contains(w.Body.String(), string(quipu.CodeInternal)) && w.Code == 500 {
			t.Errorf("%s %s: %d %s", method, u, w.Code, w.Body)
		}
		book, err := ns.Log().OpenBook(t.Context(), "quipu/default")
		if err != nil {
			t.Fatalf("%s %s: the platform's book: %v", method, u, err)
		}
		if now, err := ns.Log().Tail(t.Context(), book, quipu.Local); err != nil || now != tail {
			t.Errorf("%s %s: the platform's book ends at %s, not %s", method, u, now, tail)
		}
	})
}
