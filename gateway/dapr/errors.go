package dapr

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/gateway"
)

// problem is Dapr's error body.
type problem struct {
	ErrorCode string       `json:"errorCode"`
	Message   string       `json:"message"`
	Details   []detailInfo `json:"details,omitempty"`
}

// detailInfo is google.rpc.ErrorInfo in JSON.
type detailInfo struct {
	Type     string            `json:"@type"`
	Domain   string            `json:"domain"`
	Reason   string            `json:"reason"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

func errorInfo(reason string, metadata map[string]string) []detailInfo {
	return []detailInfo{{Type: "type.googleapis.com/google.rpc.ErrorInfo", Domain: "dapr.io", Reason: reason, Metadata: metadata}}
}

func answer(w http.ResponseWriter, status int, code, format string, args ...any) {
	answerWith(w, status, problem{ErrorCode: code, Message: fmt.Sprintf(format, args...)})
}

func answerWith(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("dapr: marshal %T: %v", v, err)) // maps and strings
	}
	w.Header().Set("Content-Type", "application/json")
	gateway.RetryAfter(w.Header(), status)
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that left has nobody to tell
}

// fail answers with the status of our code under Dapr's code, where Dapr has no word of its own.
func (d *door) fail(w http.ResponseWriter, r *http.Request, code string, err error) {
	status, p := gateway.Problem(d.opt.Logger, r, err)
	answer(w, status, code, "%s", text(p.Error, p.Code))
}

// text ends with our code, so that quipu explain helps here too.
func text(message string, code quipu.Code) string { return fmt.Sprintf("%s [%s]", message, code) }

func malformed(w http.ResponseWriter, err error) {
	answer(w, http.StatusBadRequest, "ERR_MALFORMED_REQUEST", "failed deserializing HTTP body: %v", err)
}

// failPrefix is fail with Dapr's words before ours.
func (d *door) failPrefix(w http.ResponseWriter, r *http.Request, code, prefix string, err error) {
	status, p := gateway.Problem(d.opt.Logger, r, err)
	answer(w, status, code, "%s%s", prefix, text(p.Error, p.Code))
}
