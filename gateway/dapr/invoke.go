package dapr

import (
	"cmp"
	"encoding/base64"
	"net/http"
	"strings"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/gateway"
	"github.com/quipu-run/quipu/sdk"
)

// invoke calls another function: /v1.0/invoke/{app}/method/{path...}, or any path with the target in the
// header dapr-app-id, or as the user's password of basic authentication (http://dapr-app-id:NAME@host/path). Who prefers
// not to wait for the reply gets 202 and the call's id; inside an atomic call that means "in the transaction". The target may
// also be a HTTP endpoint outside, by its name or as a URL: that acts at once, and nothing remembers the call.
func (d *Door) invoke(w http.ResponseWriter, r *http.Request) {
	app, path := target(r)
	if app == "" {
		answer(w, http.StatusNotFound, "ERR_DIRECT_INVOKE", noTarget)
		return
	}
	session, err := d.opt.Session(r)
	if err != nil {
		d.failInvoke(w, r, app, err)
		return
	}
	body, err := gateway.LimitBody(r, d.opt.BodyBytesMax)
	if err != nil {
		d.failInvoke(w, r, app, err)
		return
	}
	c := gateway.CallOf(r, app, path, "dapr")
	c.Header.Set(callerHeader, session.Function())
	c.Header.Set(calleeHeader, app)
	c.Body = body
	invoke := session.Invoke
	if to, ok := d.endpoint(r, app); ok {
		if c.Header.Get(quipu.HeaderIdempotency) == "" {
			c.Header.Set(quipu.HeaderIdempotency, cmp.Or(c.IdempotencyKey, session.EffectID()))
		}
		invoke = to.Invoke
	} else if c.Function = withoutNamespace(app); gateway.WantsAsync(&c) {
		info, err := session.InvokeAsync(r.Context(), c)
		if err != nil {
			d.failInvoke(w, r, app, err)
			return
		}
		gateway.WriteAccepted(w, r.Header.Get(sdk.HeaderNamespace), info)
		return
	}
	reply, err := invoke(r.Context(), c)
	if err != nil {
		d.failInvoke(w, r, app, err)
		return
	}
	gateway.WriteReply(w, reply)
}

func (d *Door) failInvoke(w http.ResponseWriter, r *http.Request, app string, err error) {
	p := d.invokeProblem(r, app, err)
	answerWith(w, p.status, p)
}

// invokeProblem says 500 as Dapr does for a target that is not there or does not answer, so that the retries of
// its clients work, and our status where it says more: too large, too many, too deep, not now.
func (d *Door) invokeProblem(r *http.Request, app string, err error) *problem {
	p := d.problem(r, "ERR_DIRECT_INVOKE", "failed to invoke, id: "+app+", err: ", err)
	p.reason = "" // Dapr gives none
	switch quipu.CodeOf(err) {
	case quipu.CodeNoFunction, quipu.CodeStart, quipu.CodeTimeout, quipu.CodeCrashed, quipu.CodeReply, quipu.CodeReplySize, quipu.CodeStreaming, quipu.CodeUnhealthy:
		p.status = http.StatusInternalServerError
	}
	return p
}

// target is the name of a function, or an endpoint outside, and the path to call. The path stays escaped as the client sent it.
func target(r *http.Request) (app, path string) {
	path = r.URL.EscapedPath()
	if app = r.Header.Get(targetHeader); app != "" {
		return app, path
	}
	if app = appOfAuth(r.Header.Get("Authorization")); app != "" {
		return app, path
	}
	rest, ok := strings.CutPrefix(path, "/v1.0/invoke/")
	if !ok {
		return "", ""
	}
	app, method, ok := strings.Cut(rest, "/method/")
	if !ok {
		if app, ok = strings.CutSuffix(rest, "/method"); !ok {
			return "", ""
		}
	}
	if app = unescape(app); strings.Contains(app, "/") && !isURL(app) {
		return "", ""
	}
	return app, "/" + method
}

// withoutNamespace drops what follows a dot: names of functions have none, and a call stays in its namespace.
func withoutNamespace(app string) string {
	name, _, _ := strings.Cut(app, ".")
	return name
}

func appOfAuth(header string) string {
	encoded, ok := strings.CutPrefix(header, "Basic ")
	if !ok {
		return ""
	}
	text, err := base64.StdEncoding.DecodeString(encoded)
	user, app, _ := strings.Cut(string(text), ":")
	if err != nil || user != "dapr-app-id" {
		return ""
	}
	return app
}
