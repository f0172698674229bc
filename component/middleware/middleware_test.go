package middleware

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jwt"
	"github.com/quipu-run/quipu/internal/component"
	"github.com/quipu-run/quipu/xtest"
	"golang.org/x/time/rate"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// echo answers where a request went and what was in it.
var echo = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusTeapot)
		return
	}
	fmt.Fprintf(w, "%s %s %s", r.URL.RequestURI(), r.RequestURI, body)
})

func try(kind string, clock *xtest.Clock, m component.Metadata) (http.Handler, error) {
	is, err := Factories()["middleware.http."+kind](context.Background(), component.Host{Clock: clock}, component.Spec{Metadata: m})
	if err != nil {
		return nil, err
	}
	return is.(component.Middleware)(echo), nil
}

func load(t *testing.T, kind string, clock *xtest.Clock, m component.Metadata) http.Handler {
	t.Helper()
	h, err := try(kind, clock, m)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func send(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func get(h http.Handler, path string) *httptest.ResponseRecorder {
	return send(h, httptest.NewRequest("GET", path, strings.NewReader("body")))
}

func TestRoutesAreChecked(t *testing.T) {
	h := load(t, "routerchecker", nil, component.Metadata{"rule": `^[A-Za-z0-9/._-]+(\?x=[0-9]+)?$`})
	for path, want := range map[string]int{"/v1.0/invoke/a": 200, "/a?x=1": 200, "/a?y=1": 400, "/a%20b": 400} {
		if w := get(h, path); w.Code != want || (want == 400 && !strings.Contains(w.Body.String(), "invalid router")) {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	for _, m := range []component.Metadata{nil, {"rule": "("}} {
		if _, err := try("routerchecker", nil, m); err == nil {
			t.Errorf("%v was accepted", m)
		}
	}
}

func TestRoutesHaveAliases(t *testing.T) {
	routes := `{"/items/{id}": "/v1.0/invoke/shop/method/item", "/items/{id:[0-9]{2}}/{part}": "/part", "/plain": "/v1.0/plain", "/items/all.list": "/all"}`
	for _, m := range []component.Metadata{{"routes": routes}, {"/items/{id}": "/v1.0/invoke/shop/method/item", "/items/{id:[0-9]{2}}/{part}": "/part", "/plain": "/v1.0/plain", "/items/all.list": "/all"}} {
		h := load(t, "routeralias", nil, m)
		for path, want := range map[string]string{
			"/plain?a=b": "/v1.0/plain?a=b", "/items/7?a=b": "/v1.0/invoke/shop/method/item?a=b&id=7", "/items/77/x": "/part?id=77&part=x",
			"/items/777/x": "/items/777/x", "/items/all.list": "/all", "/items/allxlist": "/v1.0/invoke/shop/method/item?id=allxlist", "/other": "/other",
		} {
			if w := get(h, path); w.Body.String() != want+" "+want+" body" {
				t.Errorf("%s went to %s, want %s", path, w.Body, want)
			}
		}
	}
	for _, m := range []component.Metadata{{"routes": "["}, {"/a{b": "/c"}, {"/a{:x}": "/c"}, {"/a{b:(}": "/c"}, {"/a": ""}} {
		if _, err := try("routeralias", nil, m); err == nil {
			t.Errorf("%v was accepted", m)
		}
	}
}

func TestTheRequestIsNotChangedForOthers(t *testing.T) {
	h := load(t, "routeralias", nil, component.Metadata{"/a/{b}": "/c"})
	r := httptest.NewRequest("GET", "/a/1", nil)
	send(h, r)
	if r.URL.Path != "/a/1" || r.RequestURI != "/a/1" {
		t.Errorf("the request is now to %s", r.URL)
	}
}

func TestBodiesBecomeCapital(t *testing.T) {
	for direction, want := range map[string]string{"": "/p /p BODY", "request": "/p /p BODY", "response": "/P /P BODY", "both": "/P /P BODY"} {
		if w := get(load(t, "uppercase", nil, component.Metadata{"direction": direction}), "/p"); w.Body.String() != want {
			t.Errorf("%q: %s", direction, w.Body)
		}
	}
	if _, err := try("uppercase", nil, component.Metadata{"direction": "up"}); err == nil {
		t.Error("a direction that there is not was accepted")
	}
}

func TestTooManyRequestsOfOneCallerAreRefusedUntilTimeHasPassed(t *testing.T) {
	clock := xtest.NewClock(now)
	h := load(t, "ratelimit", clock, component.Metadata{"maxRequestsPerSecond": "2"})
	from := func(host, path string, want int) {
		t.Helper()
		r := httptest.NewRequest("GET", path, strings.NewReader(""))
		r.RemoteAddr = host
		if w := send(h, r); w.Code != want || (want == 429 && w.Header().Get("X-Rate-Limit-Limit") != "2.00") {
			t.Errorf("%s %s: %d", host, path, w.Code)
		}
	}
	from("10.0.0.1:1", "/", 200)
	from("10.0.0.1:2", "/", 200)
	from("10.0.0.1:3", "/", 429)
	from("10.0.0.2:1", "/", 200)
	from("10.0.0.1:1", "/other", 200)
	clock.Move(time.Second / 2)
	from("10.0.0.1:4", "/", 200)
	from("10.0.0.1:4", "/", 429)
	for _, bad := range []string{"0", "-1", "many", "NaN", "Inf"} {
		if _, err := try("ratelimit", clock, component.Metadata{"maxRequestsPerSecond": bad}); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestARateLimitRemembersABoundedNumberOfCallers(t *testing.T) {
	clock := xtest.NewClock(now)
	l := &limiter{clock: clock, limit: 1, burst: 1, by: map[caller]*rate.Limiter{}, rest: rate.NewLimiter(1, 1)}
	for i := range callersMax {
		if !l.allow(caller{"h", fmt.Sprint(i)}) {
			t.Fatalf("caller %d was refused", i)
		}
	}
	if !l.allow(caller{"h", "one more"}) || l.allow(caller{"h", "and one more"}) {
		t.Error("those over the limit do not share what one has")
	}
	if len(l.by) != callersMax {
		t.Errorf("%d are remembered", len(l.by))
	}
	clock.Move(2 * time.Second)
	if !l.allow(caller{"h", "later"}) || len(l.by) != 1 {
		t.Errorf("later %d are remembered", len(l.by))
	}
}

// issuer has a key, and signs tokens with it.
type issuer struct {
	*httptest.Server
	key  jwk.Key
	name string
}

func newIssuer(t *testing.T) *issuer {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{}
	if i.key, err = jwk.FromRaw(private); err == nil {
		err = i.key.Set(jwk.KeyIDKey, "k1")
	}
	if err != nil {
		t.Fatal(err)
	}
	public, err := i.key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/.well-known/openid-configuration":
			fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, i.name, i.URL+"/keys")
		case "/keys":
			if err := json.NewEncoder(w).Encode(map[string]any{"keys": []any{public}}); err != nil {
				t.Error(err)
			}
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(i.Close)
	i.name = i.URL
	return i
}

func (i *issuer) token(t *testing.T, issuer, audience string, expires time.Time, key jwk.Key) string {
	t.Helper()
	token, err := jwt.NewBuilder().Issuer(issuer).Audience([]string{audience}).Expiration(expires).Build()
	if err != nil {
		t.Fatal(err)
	}
	signed, err := jwt.Sign(token, jwt.WithKey(jwa.ES256, key))
	if err != nil {
		t.Fatal(err)
	}
	return string(signed)
}

func TestOnlyWhoHasAValidTokenGoesThrough(t *testing.T) {
	i, other := newIssuer(t), newIssuer(t)
	clock := xtest.NewClock(now)
	found := load(t, "bearer", clock, component.Metadata{"issuerURL": i.URL, "clientID": "app"})
	said := load(t, "bearer", clock, component.Metadata{"issuer": i.URL, "audience": "app", "jwksURL": i.URL + "/keys"})
	good := i.token(t, i.URL, "app", now.Add(time.Hour), i.key)
	for name, c := range map[string]struct {
		header string
		want   int
	}{
		"a good one":       {"Bearer " + good, 200},
		"in small letters": {"bearer " + good, 200},
		"none":             {"", 401},
		"another scheme":   {"Basic " + good, 401},
		"too short":        {"Bearer x", 401},
		"too long":         {"Bearer " + strings.Repeat("x", tokenBytesMax+1), 401},
		"another audience": {"Bearer " + i.token(t, i.URL, "other", now.Add(time.Hour), i.key), 401},
		"another issuer":   {"Bearer " + i.token(t, other.URL, "app", now.Add(time.Hour), i.key), 401},
		"another key":      {"Bearer " + i.token(t, i.URL, "app", now.Add(time.Hour), other.key), 401},
		"just expired":     {"Bearer " + i.token(t, i.URL, "app", now.Add(-clockSkew+time.Minute), i.key), 200},
		"expired":          {"Bearer " + i.token(t, i.URL, "app", now.Add(-clockSkew-time.Minute), i.key), 401},
		"tampered with":    {"Bearer " + good[:len(good)-4] + "AAAA", 401},
		"not signed":       {"Bearer eyJhbGciOiJub25lIn0." + strings.Split(good, ".")[1] + ".", 401},
	} {
		for _, h := range []http.Handler{found, said} {
			r := httptest.NewRequest("GET", "/", strings.NewReader(""))
			r.Header.Set("Authorization", c.header)
			w := send(h, r)
			if w.Code != c.want || (c.want == 401) != (w.Header().Get("WWW-Authenticate") == "Bearer") {
				t.Errorf("%s: %d", name, w.Code)
			}
		}
	}
}

func TestAnIssuerThatIsNotWhoItSaysIsRefused(t *testing.T) {
	i := newIssuer(t)
	i.name = "https://somebody.else"
	clock := xtest.NewClock(now)
	for _, m := range []component.Metadata{{"audience": "a"}, {"issuer": i.URL}, {"issuer": i.URL, "audience": "a"}, {"issuer": i.URL + "/x", "audience": "a"},
		{"issuer": i.URL, "audience": "a", "jwksURL": i.URL + "/none"}, {"issuer": i.URL, "audience": "a", "jwksURL": "/etc/passwd"}} {
		if _, err := try("bearer", clock, m); err == nil {
			t.Errorf("%v was accepted", m)
		}
	}
}
