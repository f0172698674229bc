package gateway

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/quipu-run/quipu"
)

const methodsMax = 16 // of one trigger

// table finds the function for a method and a path. It never changes.
//
// There is one ServeMux per method that any trigger names, and one for all other methods; patterns are put in
// without their method. That way patterns that never meet do not conflict, and the methods of a path are known.
type table struct {
	any      *http.ServeMux
	byMethod map[string]*http.ServeMux
	names    []string // of the methods, sorted
	routes   []route
}

type route struct {
	function string
	path     string
	methods  []string // nil for all; HEAD comes with GET
}

func (r route) takes(method string) bool {
	return r.methods == nil || slices.Contains(r.methods, method)
}

// target is what the muxes hold; it is only looked up, never served.
type target struct{ function string }

func (target) ServeHTTP(http.ResponseWriter, *http.Request) { panic("gateway: a target is not served") }

// CheckRoutes finds http triggers that cannot be used: patterns that are malformed or take what is ours, and
// patterns of which neither is more specific than the other although some request fits both. CodeRoute names
// the functions and their paths.
func CheckRoutes(functions []quipu.Function) error {
	_, err := newTable(functions)
	return err
}

func newTable(functions []quipu.Function) (*table, error) {
	t := &table{any: http.NewServeMux(), byMethod: map[string]*http.ServeMux{}}
	for _, fn := range functions {
		for _, trigger := range fn.Spec.Triggers {
			if trigger.HTTP == nil {
				continue
			}
			r, err := newRoute(fn.Name, *trigger.HTTP)
			if err != nil {
				return nil, err
			}
			t.routes = append(t.routes, r)
			for _, m := range r.methods {
				t.byMethod[m] = nil
			}
		}
	}
	for m := range t.byMethod {
		t.names = append(t.names, m)
	}
	slices.Sort(t.names)
	return t, t.fill()
}

// fill makes the muxes.
func (t *table) fill() error {
	for _, m := range append(t.names, "") {
		mux := http.NewServeMux()
		var in []route
		for _, r := range t.routes {
			if !r.takes(m) {
				continue
			}
			if register(mux, r) != nil {
				return collision(in, r)
			}
			in = append(in, r)
		}
		if m == "" {
			t.any = mux
		} else {
			t.byMethod[m] = mux
		}
	}
	return nil
}

// newRoute checks one trigger by itself.
func newRoute(function string, trigger quipu.HTTPTrigger) (route, error) {
	r := route{function: function, path: trigger.Path, methods: slices.Clone(trigger.Methods)}
	bad := func(why string) (route, error) {
		return r, &quipu.Error{Code: quipu.CodeRoute,
			Text: fmt.Sprintf("the path %s of function %q %s", quote(trigger.Path), function, why),
			Hint: "a path is a pattern like /orders, /orders/{id}, /files/{path...} or /{$}"}
	}
	switch {
	case !strings.HasPrefix(r.path, "/"):
		return bad("does not start with a slash")
	case r.path == "/-" || strings.HasPrefix(r.path, "/-/"):
		return bad("is under /-/, which belongs to the node")
	case len(r.methods) > methodsMax:
		return bad(fmt.Sprintf("names more than %d methods", methodsMax))
	}
	for _, m := range r.methods {
		if !isMethod(m) {
			return bad(fmt.Sprintf("has %s for a method", quote(m)))
		}
	}
	if slices.Contains(r.methods, http.MethodGet) && !slices.Contains(r.methods, http.MethodHead) {
		r.methods = append(r.methods, http.MethodHead)
	}
	if why := register(http.NewServeMux(), r); why != nil {
		return bad("is malformed")
	}
	return r, nil
}

// isMethod takes upper-case names. CONNECT asks for a tunnel, which a function cannot be.
func isMethod(m string) bool {
	return m != "" && len(m) <= 20 && m != http.MethodConnect && strings.Trim(m, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-") == ""
}

// register answers what ServeMux panics with.
func register(mux *http.ServeMux, r route) (why any) {
	defer func() { why = recover() }()
	mux.Handle(r.path, target{r.function})
	return nil
}

// collision names the route that r cannot be beside.
func collision(in []route, r route) error {
	for _, other := range in {
		mux := http.NewServeMux()
		if register(mux, other) == nil && register(mux, r) != nil {
			return &quipu.Error{Code: quipu.CodeRoute,
				Text: fmt.Sprintf("the path %s of function %q and the path %s of function %q fit the same requests",
					quote(other.path), other.function, quote(r.path), r.function),
				Hint: "change one of the two, or give them different methods"}
		}
	}
	return &quipu.Error{Code: quipu.CodeRoute, Text: fmt.Sprintf("the path %s of function %q collides", quote(r.path), r.function)}
}

// find answers the function for a request. CodeNoRoute; CodeMethod with the methods the path has. slash tells
// that only the same path with a slash at its end is a route.
func (t *table) find(method string, u *url.URL) (function string, allow []string, slash bool) {
	mux, ok := t.byMethod[method]
	if !ok {
		mux = t.any
	}
	if function, slash = lookup(mux, u); function != "" || slash {
		return function, nil, slash
	}
	for _, m := range t.names {
		if other, _ := lookup(t.byMethod[m], u); other != "" {
			allow = append(allow, m)
		}
	}
	return "", allow, false
}

// lookup asks as if for CONNECT, the one method for which ServeMux takes the path as it is instead of sending
// the client to a tidier one.
func lookup(mux *http.ServeMux, u *url.URL) (function string, slash bool) {
	h, _ := mux.Handler(&http.Request{Method: http.MethodConnect, URL: u, Host: u.Host})
	if t, ok := h.(target); ok {
		return t.function, false
	}
	withSlash := *u
	withSlash.Path, withSlash.RawPath = u.Path+"/", ""
	if strings.HasSuffix(u.Path, "/") {
		return "", false
	}
	h, _ = mux.Handler(&http.Request{Method: http.MethodConnect, URL: &withSlash, Host: u.Host})
	_, slash = h.(target)
	return "", slash
}
