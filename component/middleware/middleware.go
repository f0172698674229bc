// Package middleware has steps of HTTP pipelines: limits of rate, tokens, checks and aliases of routes.
//
// Steps keep nothing over a restart. Those of Dapr that need an engine of policies, a login page, or WebAssembly are not here.
package middleware

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/quipu-run/quipu/internal/component"
)

// Factories are the types of this package.
func Factories() map[string]component.Factory {
	return map[string]component.Factory{
		"middleware.http.bearer":        NewBearer,
		"middleware.http.ratelimit":     NewRateLimit,
		"middleware.http.routeralias":   NewRouterAlias,
		"middleware.http.routerchecker": NewRouterChecker,
		"middleware.http.uppercase":     NewUppercase,
	}
}

// refuse answers a request that goes no further.
func refuse(w http.ResponseWriter, status int, why string) {
	if why == "" {
		why = http.StatusText(status)
	}
	http.Error(w, why, status)
}

// requestURI is the path and the query, as they were sent.
func requestURI(r *http.Request) string {
	uri := r.URL.EscapedPath()
	if uri == "" {
		uri = "/"
	}
	if r.URL.ForceQuery || r.URL.RawQuery != "" {
		uri += "?" + r.URL.RawQuery
	}
	return uri
}

// NewRouterChecker makes a middleware.http.routerchecker: what does not match is answered with 400. Metadata: rule, a regular
// expression for path and query.
func NewRouterChecker(_ context.Context, _ component.Host, s component.Spec) (any, error) {
	rule, err := s.Metadata.Need("rule")
	if err != nil {
		return nil, err
	}
	expression, err := regexp.Compile(rule)
	if err != nil {
		return nil, fmt.Errorf("metadata rule: %w", err)
	}
	return component.Middleware(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !expression.MatchString(requestURI(r)) {
				refuse(w, http.StatusBadRequest, "invalid router")
				return
			}
			next.ServeHTTP(w, r)
		})
	}), nil
}

// NewUppercase makes a middleware.http.uppercase, with which pipelines are tried: the letters of ASCII in bodies become capital.
// Metadata: direction, which is request, response or both.
func NewUppercase(_ context.Context, _ component.Host, s component.Spec) (any, error) {
	direction := strings.ToLower(s.Metadata.Get("direction"))
	if !slices.Contains([]string{"", "request", "response", "both"}, direction) {
		return nil, errors.New("metadata direction must be request, response or both")
	}
	return component.Middleware(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if direction != "response" && r.Body != nil {
				r = r.WithContext(r.Context())
				r.Body = upperReader{r.Body}
			}
			if direction == "response" || direction == "both" {
				w = upperWriter{w}
			}
			next.ServeHTTP(w, r)
		})
	}), nil
}

type upperReader struct{ io.ReadCloser }

// Read is io.Reader.
func (u upperReader) Read(p []byte) (int, error) {
	n, err := u.ReadCloser.Read(p)
	upper(p[:n])
	return n, err
}

type upperWriter struct{ http.ResponseWriter }

// Write is io.Writer.
func (u upperWriter) Write(p []byte) (int, error) {
	capital := slices.Clone(p)
	upper(capital)
	return u.ResponseWriter.Write(capital)
}

// Unwrap is for http.ResponseController.
func (u upperWriter) Unwrap() http.ResponseWriter { return u.ResponseWriter }

func upper(p []byte) {
	for i, c := range p {
		if 'a' <= c && c <= 'z' {
			p[i] = c - 'a' + 'A'
		}
	}
}
