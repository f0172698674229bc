package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

func (g *Gateway) attachRoutes() []adminRoute {
	return []adminRoute{
		{id: "attach", method: "POST", path: "/apps/{app}/attach", creates: true,
			summary: "Make an application that runs by itself part of the namespace while this reply is read: a line of JSON each time something changes.",
			body:    jsonType, takes: sdk.Attachment{}, bodyMax: attachBytesMax, status: 200, reply: jsonLinesType, shape: sdk.Attached{},
			codes: []quipu.Code{quipu.CodeUsage, quipu.CodeBadJSON, quipu.CodeManifest, quipu.CodePortTaken, quipu.CodeTooMany}, serve: g.attach},
		{id: "reloadAttached", method: "PUT", path: "/apps/{app}/attached/{id}/resources",
			summary: "Give an attached application other resource files. It goes on with those it has if they cannot be used.",
			body:    jsonType, takes: sdk.AttachedResources{}, bodyMax: attachBytesMax, status: 204,
			codes: []quipu.Code{quipu.CodeNoFunction, quipu.CodeBadJSON, quipu.CodeManifest, quipu.CodeComponent, quipu.CodeDenied, quipu.CodeTooMany}, serve: reloadAttached},
	}
}

const attachBytesMax = 1 << 20

// attach begins its reply when the application is attached, so that what goes wrong before has its status.
func (g *Gateway) attach(a *ask) error {
	body, err := a.readBody()
	if err != nil {
		return err
	}
	what := sdk.Attachment{Protocol: quipu.ProtocolHTTP}
	if err := decodeStrict(body, &what); err != nil {
		return &quipu.Error{Code: quipu.CodeBadJSON, Text: "the body does not describe an application: " + clip(err.Error())}
	}
	ctx, end := g.untilDrain(a.Context())
	defer end()
	out, begun := &stream{ask: a, out: http.NewResponseController(a.ResponseWriter)}, false
	err = a.ns.Attach(ctx, a.values["app"], what, func(now sdk.Attached) error {
		if !begun {
			begun = true
			if err := out.begin(jsonLinesType); err != nil {
				return err
			}
		}
		return out.line(now)
	})
	if err == nil || !begun {
		return err
	}
	if ctx.Err() != nil {
		return nil // the client left, or the node stops
	}
	return out.unlessLeft(out.line(sdk.Attached{Problem: problemOf(g, a, err)}))
}

// reloadAttached answers when the new resources are in use.
func reloadAttached(a *ask) error {
	body, err := a.readBody()
	if err != nil {
		return err
	}
	var what sdk.AttachedResources
	if err := decodeStrict(body, &what); err != nil {
		return &quipu.Error{Code: quipu.CodeBadJSON, Text: "the body does not have resources: " + clip(err.Error())}
	}
	if err := a.ns.Reload(a.Context(), a.values["app"], a.values["id"], what); err != nil {
		return err
	}
	a.WriteHeader(http.StatusNoContent)
	return nil
}

// decodeStrict reads one JSON object that has no fields but those of v.
func decodeStrict(body []byte, v any) error {
	in := json.NewDecoder(bytes.NewReader(body))
	in.DisallowUnknownFields()
	err := in.Decode(v)
	if err == nil && in.More() {
		err = errors.New("something follows the object")
	}
	return err
}
