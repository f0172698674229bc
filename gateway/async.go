package gateway

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// caller makes calls, now or later.
type caller interface {
	quipu.Invoker
	quipu.AsyncInvoker
}

// WantsAsync tells whether a client prefers not to wait for the reply of a call (RFC 7240). The preference is for us: it is
// taken out of what the function gets.
func WantsAsync(c *quipu.CallRequest) bool {
	var others []string
	wants := false
	for _, list := range c.Header.Values(quipu.HeaderPrefer) {
		for preference := range strings.SplitSeq(list, ",") {
			preference = strings.TrimSpace(preference)
			name, _, _ := strings.Cut(preference, ";")
			if strings.EqualFold(strings.TrimSpace(name), quipu.PreferAsync) {
				wants = true
			} else if preference != "" {
				others = append(others, preference)
			}
		}
	}
	if wants {
		c.Header.Del(quipu.HeaderPrefer)
	}
	if wants && len(others) > 0 {
		c.Header.Set(quipu.HeaderPrefer, strings.Join(others, ", "))
	}
	return wants
}

// WriteAccepted answers that a call will be made: where it can be asked for is on the main listener.
func WriteAccepted(w http.ResponseWriter, namespace string, info quipu.CallInfo) {
	at := url.URL{Path: adminPrefix + "/calls/" + info.ID, RawPath: adminPrefix + "/calls/" + url.PathEscape(info.ID)}
	if namespace != "" && namespace != sdk.NamespaceDefault {
		at.RawQuery = url.Values{"namespace": {namespace}}.Encode()
	}
	h := w.Header()
	h.Set("Location", at.String())
	h.Set("Preference-Applied", quipu.PreferAsync)
	h.Set(quipu.HeaderCallID, info.ID)
	writeJSON(w, http.StatusAccepted, sdk.Accepted{ID: info.ID, Status: info.State})
}

// getCallResult answers with what the function did, or says that it has not yet: Quipu-Call-Id is on the function's
// replies only.
func getCallResult(a *ask) error {
	reply, err := a.ns.CallResult(a.Context(), a.values["call"])
	if quipu.CodeOf(err) != quipu.CodeCallPending {
		if err == nil {
			WriteReply(a.ResponseWriter, reply)
		}
		return err
	}
	info, err := a.ns.Call(a.Context(), a.values["call"])
	if err != nil {
		return err
	}
	a.Header().Set("Retry-After", "1")
	writeJSON(a.ResponseWriter, http.StatusAccepted, sdk.Accepted{ID: info.ID, Status: info.State})
	return nil
}

func cancelCall(a *ask) error {
	info, err := a.ns.CancelCall(a.Context(), a.values["call"])
	if err != nil {
		return err
	}
	return a.reply(info)
}

// asyncRoutes are the operations on calls that nobody waits for.
func asyncRoutes() []adminRoute {
	return []adminRoute{
		{id: "getCallResult", method: "GET", path: "/calls/{call}/result", summary: "What a call was answered with: status, headers and body are the function's, with Quipu-Call-Id. While the call has not ended the answer is 202, without that header. A call that ended without a reply answers with the error it ended with.",
			status: 200, reply: "*/*", codes: slices.Concat([]quipu.Code{quipu.CodeNotFound, quipu.CodeCallCancelled, quipu.CodeCallExpired}, callCodes), serve: getCallResult},
		{id: "cancelCall", method: "POST", path: "/calls/{call}/cancel", summary: "End a call that nobody waits for. One that runs is cut; what it did outside of a transaction stays done.",
			status: 200, reply: jsonType, shape: quipu.CallInfo{}, codes: []quipu.Code{quipu.CodeNotFound, quipu.CodeCallEnded}, serve: cancelCall},
	}
}

// callCodes are those that a call can end with.
var callCodes = []quipu.Code{quipu.CodeNoFunction, quipu.CodeBodySize, quipu.CodeTimeout, quipu.CodeCrashed, quipu.CodeStart, quipu.CodeBusy, quipu.CodeContention}
