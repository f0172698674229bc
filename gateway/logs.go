package gateway

import (
	"net/http"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

func (g *Gateway) logRoutes() []adminRoute {
	return []adminRoute{
		{id: "getAllLogs", method: "GET", path: "/logs", summary: "What instances of several functions printed, in order of time, a line of JSON for each line.",
			query: []param{{"function", "strings", "these; default: all"}, {"tail", "integer", "how many of the last lines; default 100, at most 10000"}, {"follow", "boolean", "go on with new lines, also of functions that are new"},
				{"after", "strings", "FUNCTION:PLACE, the place of the last line that was seen of a function: go on behind it, whatever tail is"},
				{"since", "string", "with after: when the first line that was seen was printed, in RFC 3339; of functions without a place, lines from then on"}},
			status: 200, reply: jsonLinesType, shape: sdk.LogLine{}, codes: []quipu.Code{quipu.CodeNoFunction}, serve: g.getAllLogs},
	}
}

func (g *Gateway) getAllLogs(a *ask) (err error) {
	r := sdk.LogsRequest{Functions: a.query["function"]}
	if r.Tail, err = a.integer("tail", 100, tailLinesMax); err != nil {
		return err
	}
	if r.Follow, err = a.boolean("follow"); err != nil {
		return err
	}
	if text := a.query.Get("since"); text != "" {
		if r.Since, err = time.Parse(time.RFC3339Nano, text); err != nil {
			return usage("since is %s; it must be a time as 2026-01-02T03:04:05Z", quote(text))
		}
		r.After = map[string]string{}
	}
	for _, text := range a.query["after"] {
		function, place, ok := strings.Cut(text, ":")
		if !ok || r.After == nil {
			return usage("after is %s; it must be FUNCTION:PLACE, and since has to be there", quote(text))
		}
		r.After[function] = place
	}
	return g.writeLogs(a, r)
}

// writeLogs answers with lines until there are no more, the client leaves, or the node stops.
func (g *Gateway) writeLogs(a *ask, r sdk.LogsRequest) error {
	ctx, end := g.untilDrain(a.Context())
	defer end()
	if err := a.ns.LogsFound(r); err != nil {
		return err
	}
	out := &stream{ask: a, out: http.NewResponseController(a.ResponseWriter)}
	if err := out.begin(jsonLinesType); err != nil {
		return out.unlessLeft(err)
	}
	for line, err := range a.ns.Logs(ctx, r) {
		if err != nil && ctx.Err() != nil {
			return nil // the client left, or the node stops
		}
		if err == nil {
			err = out.line(line)
		}
		if err != nil {
			return out.unlessLeft(err)
		}
	}
	return nil
}
