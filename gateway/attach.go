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
