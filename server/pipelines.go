package server

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/component"
	"github.com/quipu-run/quipu/internal/resource"
)

// pipelineOf joins the middleware that a Configuration names, the first outermost; nil if it names none. CodeManifest: there is
// no such middleware.
func pipelineOf(set *component.Set, p resource.Pipeline) (component.Middleware, error) {
	var steps []component.Middleware
	for _, h := range p.Handlers {
		step, ok := component.Of[component.Middleware](set, h.Name)
		if !ok {
			return nil, &quipu.Error{Code: quipu.CodeManifest, Op: "app.read", Hint: quipu.Codes[quipu.CodeManifest].Next,
				Text: fmt.Sprintf("a pipeline of the Configuration names %q (%s), and there is no such component", h.Name, h.Type)}
		}
		steps = append(steps, step)
	}
	if len(steps) == 0 {
		return nil, nil
	}
	return func(next http.Handler) http.Handler {
		for _, step := range slices.Backward(steps) {
			next = step(next)
		}
		return next
	}, nil
}

// piped is Dapr's API for an application behind the pipeline of its Configuration, which may change.
func piped(door http.Handler, using func() *uses) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if through := using().httpPipeline; through != nil {
			through(door).ServeHTTP(w, r)
			return
		}
		door.ServeHTTP(w, r)
	})
}

// pipedApp is an application behind the pipeline of its Configuration. Its replies are held until they are whole.
type pipedApp struct {
	app
	using func() *uses
}

// Do is app's.
func (a pipedApp) Do(r *http.Request) (*http.Response, error) {
	through := a.using().appPipeline
	if through == nil {
		return a.app.Do(r)
	}
	reply, failed := &heldReply{status: http.StatusOK, header: http.Header{}}, error(nil)
	through(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		resp, err := a.app.Do(r)
		if err != nil {
			failed = err
			return
		}
		defer resp.Body.Close()
		for name, values := range resp.Header {
			w.Header()[name] = values
		}
		w.WriteHeader(resp.StatusCode)
		_, failed = io.Copy(w, resp.Body)
	})).ServeHTTP(reply, r)
	if failed != nil {
		return nil, failed
	}
	reply.header.Del("Content-Length") // a step may have changed the body
	return &http.Response{StatusCode: reply.status, Status: http.StatusText(reply.status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: reply.header,
		Body: io.NopCloser(&reply.body), ContentLength: int64(reply.body.Len()), Request: r}, nil
}

// heldReply is what a pipeline answers.
type heldReply struct {
	status int
	header http.Header
	wrote  bool
	body   bytes.Buffer
}

func (h *heldReply) Header() http.Header { return h.header }

func (h *heldReply) WriteHeader(status int) {
	if !h.wrote {
		h.status, h.wrote = status, true
	}
}

func (h *heldReply) Write(p []byte) (int, error) {
	h.wrote = true
	if h.body.Len()+len(p) > repliesMax {
		return 0, &quipu.Error{Code: quipu.CodeReplySize, Op: "call", Text: fmt.Sprintf("a reply has more than %d MiB, which a pipeline does not hold", repliesMax>>20)}
	}
	return h.body.Write(p)
}
