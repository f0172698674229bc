// Package sdk is the Go client of a node: of its admin API (Client), with the shapes that client and node share, and of its
// log over gRPC (Log), which is a quipu.Log.
//
// Errors come back as *quipu.Error with the code the node gave; a node that cannot be reached, or is none, is
// CodeNoNode. Nothing is retried here but subscriptions of Log: an error says what is known, and the caller knows what may be repeated.
// A client keeps nothing but idle connections.
package sdk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/quipu-run/quipu"
)

// replyBytesMax bounds a reply that is read as a whole.
const replyBytesMax = 256 << 20

// Options of a client.
type Options struct {
	URL       string       // of the node: http://127.0.0.1:8080, or without http://
	Token     string       // "" for none
	Namespace string       // "" means NamespaceDefault
	HTTP      *http.Client // nil means one of its own, without time limits
}

// Client talks to one node about one namespace. Its methods may be called concurrently.
type Client struct {
	base      *url.URL
	token     string
	namespace string
	http      *http.Client
}

// New checks the options. CodeUsage if the URL is none.
func New(opt Options) (*Client, error) {
	text := opt.URL
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, &quipu.Error{Code: quipu.CodeUsage, Text: fmt.Sprintf("%q is not the URL of a node", opt.URL),
			Hint: "write it like http://127.0.0.1:8080"}
	}
	c := &Client{base: u, token: opt.Token, namespace: opt.Namespace, http: opt.HTTP}
	if c.http == nil {
		c.http = &http.Client{}
	}
	return c, nil
}

// Address is the node's host and port.
func (c *Client) Address() string { return c.base.Host }

// request is what methods say about one request.
type request struct {
	method string
	path   string // escaped, below /-/v1
	query  url.Values
	header http.Header
	body   io.Reader
}

// send answers a reply of success, whose body the caller closes.
func (c *Client) send(ctx context.Context, q request) (*http.Response, error) {
	resp, err := c.do(ctx, q)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		return nil, c.problem(resp)
	}
	return resp, nil
}

func (c *Client) do(ctx context.Context, q request) (*http.Response, error) {
	target := strings.TrimSuffix(c.base.String(), "/") + "/-/v1" + q.path
	if len(q.query) > 0 {
		target += "?" + q.query.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, q.method, target, q.body)
	if err != nil {
		return nil, fmt.Errorf("make a request: %w", err)
	}
	for name, values := range q.header {
		r.Header[name] = values
	}
	if c.token != "" {
		r.Header.Set(HeaderToken, c.token)
	}
	if c.namespace != "" {
		r.Header.Set(HeaderNamespace, c.namespace)
	}
	resp, err := c.http.Do(r)
	if err != nil && ctx.Err() == nil {
		return nil, &quipu.Error{Code: quipu.CodeNoNode, Err: err, Text: "no node answers at " + c.Address()}
	}
	return resp, err
}

// problem turns a reply of failure back into the node's error.
func (c *Client) problem(resp *http.Response) error {
	var p Problem
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil {
		err = json.Unmarshal(text, &p)
	}
	if err != nil || p.Code == "" {
		return &quipu.Error{Code: quipu.CodeNoNode, Err: err,
			Text: fmt.Sprintf("what answers at %s is not a node: it said %s", c.Address(), resp.Status)}
	}
	return p.AsError()
}

// AsError is the error that the problem tells of.
func (p Problem) AsError() error {
	return &quipu.Error{Code: p.Code, Text: p.Error, Hint: p.Hint, Seq: p.Seq}
}

// read sends and decodes the reply.
func read[T any](ctx context.Context, c *Client, q request) (T, error) {
	var v T
	resp, err := c.send(ctx, q)
	if err != nil {
		return v, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, replyBytesMax)).Decode(&v); err != nil {
		return v, &quipu.Error{Code: quipu.CodeNoNode, Err: err, Text: fmt.Sprintf("the reply of %s broke off or is not a node's", c.Address())}
	}
	return v, nil
}

func (c *Client) get(path string, query url.Values) request {
	return request{method: http.MethodGet, path: path, query: query}
}

// Node is what the node says about itself.
func (c *Client) Node(ctx context.Context) (Node, error) {
	return read[Node](ctx, c, c.get("/node", nil))
}

// Functions lists what is deployed, by name.
func (c *Client) Functions(ctx context.Context) ([]quipu.Function, error) {
	p, err := read[Page[quipu.Function]](ctx, c, c.get("/functions", nil))
	return p.Items, err
}

// Function finds one. CodeNoFunction.
func (c *Client) Function(ctx context.Context, name string) (quipu.Function, error) {
	return read[quipu.Function](ctx, c, c.get("/functions/"+url.PathEscape(name), nil))
}

// Deploy is Functions.Deploy of the contract, with its errors.
func (c *Client) Deploy(ctx context.Context, app string, bundle []byte) ([]quipu.Function, error) {
	return c.DeployWith(ctx, app, bundle, quipu.DeployOptions{})
}

// DeployWith is Deploy with options.
func (c *Client) DeployWith(ctx context.Context, app string, bundle []byte, o quipu.DeployOptions) ([]quipu.Function, error) {
	query := url.Values{"app": {app}}
	if o.NoTraffic {
		query.Set("traffic", "false")
	}
	p, err := read[Page[quipu.Function]](ctx, c, request{method: http.MethodPost, path: "/deploys", query: query,
		header: http.Header{"Content-Type": {"application/gzip"}}, body: bytes.NewReader(bundle)})
	return p.Items, err
}

// Remove takes a function away. CodeNoFunction.
func (c *Client) Remove(ctx context.Context, name string) error {
	return c.done(ctx, request{method: http.MethodDelete, path: "/functions/" + url.PathEscape(name)})
}

func (c *Client) done(ctx context.Context, q request) error {
	resp, err := c.send(ctx, q)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Routes lists which requests go where.
func (c *Client) Routes(ctx context.Context) ([]Route, error) {
	p, err := read[Page[Route]](ctx, c, c.get("/routes", nil))
	return p.Items, err
}

// Instances lists running copies of functions.
func (c *Client) Instances(ctx context.Context) ([]Instance, error) {
	p, err := read[Page[Instance]](ctx, c, c.get("/instances", nil))
	return p.Items, err
}

// Calls lists up to limit calls, the newest first; of one function unless name is "".
func (c *Client) Calls(ctx context.Context, name string, limit int) ([]quipu.CallInfo, error) {
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	if name != "" {
		q.Set("function", name)
	}
	p, err := read[Page[quipu.CallInfo]](ctx, c, c.get("/calls", q))
	return p.Items, err
}

// Call finds one. CodeNotFound.
func (c *Client) Call(ctx context.Context, id string) (quipu.CallInfo, error) {
	return read[quipu.CallInfo](ctx, c, c.get("/calls/"+url.PathEscape(id), nil))
}

// CallSlice is all that one call did. CodeNotFound.
func (c *Client) CallSlice(ctx context.Context, id string) (quipu.CallSlice, error) {
	return read[quipu.CallSlice](ctx, c, c.get("/calls/"+url.PathEscape(id)+"/slice", nil))
}

// Invoke calls a function; path is escaped and starts with a slash. The reply is the function's, whatever its
// status; it is an error only if the node could not get one. The caller closes its body.
func (c *Client) Invoke(ctx context.Context, function, method, path string, header http.Header, body io.Reader) (*http.Response, error) {
	resp, err := c.do(ctx, request{method: method, path: "/functions/" + url.PathEscape(function) + "/call" + path, header: header, body: body})
	if err == nil && resp.Header.Get(quipu.HeaderCallID) == "" {
		defer resp.Body.Close()
		return nil, c.problem(resp)
	}
	return resp, err
}

// InvokeAsync is Invoke of a call that nobody waits for: it returns when the call is durable.
func (c *Client) InvokeAsync(ctx context.Context, function, method, path string, header http.Header, body io.Reader) (Accepted, error) {
	header = header.Clone()
	if header == nil {
		header = http.Header{}
	}
	header.Set(quipu.HeaderPrefer, quipu.PreferAsync)
	return read[Accepted](ctx, c, request{method: method, path: "/functions/" + url.PathEscape(function) + "/call" + path, header: header, body: body})
}

// CallResult is what a function answered, whatever its status; the caller closes its body. CodeNotFound, CodeCallPending
// while the call has not ended, or the error that it ended with.
func (c *Client) CallResult(ctx context.Context, id string) (*http.Response, error) {
	resp, err := c.do(ctx, c.get("/calls/"+url.PathEscape(id)+"/result", nil))
	if err != nil || resp.Header.Get(quipu.HeaderCallID) != "" {
		return resp, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusAccepted {
		return nil, &quipu.Error{Code: quipu.CodeCallPending, Op: "call.result", Text: fmt.Sprintf("call %s has not ended", id)}
	}
	return nil, c.problem(resp)
}

// CancelCall ends a call that nobody waits for. CodeNotFound, CodeCallEnded.
func (c *Client) CancelCall(ctx context.Context, id string) (quipu.CallInfo, error) {
	return read[quipu.CallInfo](ctx, c, request{method: http.MethodPost, path: "/calls/" + url.PathEscape(id) + "/cancel"})
}

// decodeLines yields values of JSON, one after the other, until the end.
func decodeLines[T any](r io.Reader, yield func(T, error) bool) {
	for in := json.NewDecoder(r); ; {
		var v T
		err := in.Decode(&v)
		if errors.Is(err, io.EOF) || !yield(v, err) || err != nil {
			return
		}
	}
}
