package dapr

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/quipu-run/quipu"
)

// Endpoint is a target of invocations outside of the platform.
type Endpoint struct {
	BaseURL string
	Header  http.Header // of every request, in place of what the caller says
	// Client asks it, and knows its certificates; nil means one without any. Where it is redirected to is told to the caller,
	// not followed: the headers are for this host alone.
	Client *http.Client
}

// endpoint finds a target outside. No function has such a name.
func (d *Door) endpoint(r *http.Request, name string) (Endpoint, bool) {
	if d.opt.Endpoint == nil {
		return Endpoint{}, false
	}
	return d.opt.Endpoint(r, name)
}

func isURL(app string) bool {
	return strings.HasPrefix(app, "http://") || strings.HasPrefix(app, "https://")
}

// platformHeaders are between the caller and us.
var platformHeaders = []string{"Dapr-App-Id", "Dapr-Callee-App-Id", "Prefer", quipu.HeaderSession}

// Invoke asks for one reply, which streams.
func (e Endpoint) Invoke(ctx context.Context, c quipu.CallRequest) (*quipu.CallReply, error) {
	address := strings.TrimSuffix(e.BaseURL, "/") + c.Path
	if c.RawQuery != "" {
		address += "?" + c.RawQuery
	}
	r, err := http.NewRequestWithContext(ctx, c.Method, address, c.Body)
	if err != nil {
		return nil, e.problem(c.Function, "its URL cannot be one")
	}
	r.Header, r.ContentLength = c.Header.Clone(), c.ContentLength
	if c.Body == nil {
		r.ContentLength = 0
	}
	for _, name := range platformHeaders {
		r.Header.Del(name)
	}
	if r.Header.Get(quipu.HeaderIdempotency) == "" { // it belongs to no call
		r.Header.Del(quipu.HeaderIdempotency)
	}
	for name, values := range e.Header {
		r.Header[http.CanonicalHeaderKey(name)] = values
	}
	reply, err := e.client().Do(r)
	var failed *url.Error
	switch {
	case err == nil:
		return &quipu.CallReply{Status: reply.StatusCode, Header: reply.Header, Body: reply.Body, Trailer: reply.Trailer}, nil
	case quipu.CodeOf(err) != quipu.CodeInternal: // of the request's own body
		return nil, err
	case errors.As(err, &failed): // which says the URL, and that may have a password
		err = failed.Err
	}
	return nil, e.problem(c.Function, err.Error())
}

func (e Endpoint) client() *http.Client {
	client := http.Client{}
	if e.Client != nil {
		client = *e.Client
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &client
}

func (Endpoint) problem(name, why string) error {
	return &problem{status: http.StatusInternalServerError, tag: "ERR_DIRECT_INVOKE", message: fmt.Sprintf("failed to invoke, id: %s, err: %s", name, why)}
}
