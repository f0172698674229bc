package gateway

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// Problem is what a client is told of err, and the status that goes with it. What is internal stays with
// us: the client gets the id under which the cause is in the log.
func Problem(log *slog.Logger, r *http.Request, err error) (int, sdk.Problem) {
	e := quipu.AsError(err)
	info, known := quipu.Codes[e.Code]
	if !known || e.Code == quipu.CodeInternal {
		id := rand.Text()[:12]
		log.ErrorContext(r.Context(), "request failed", "request", id, "method", r.Method, "path", clip(r.URL.Path), "err", err)
		return http.StatusInternalServerError, sdk.Problem{Code: quipu.CodeInternal,
			Error: "internal error; the node's log has it as request " + id, Hint: quipu.Codes[quipu.CodeInternal].Next}
	}
	p := sdk.Problem{Code: e.Code, Error: e.Text, Hint: e.Hint, Seq: e.Seq}
	if p.Error == "" {
		p.Error = info.Title
	}
	if p.Hint == "" {
		p.Hint = info.Next
	}
	return info.Status, p
}

// fail answers with err, unless the client is gone.
func (g *Gateway) fail(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil && errors.Is(err, context.Canceled) {
		return
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		err = bodyTooLarge(tooLarge.Limit)
	}
	status, p := Problem(g.opt.Logger, r, err)
	WaitFor(w.Header(), err)
	RetryAfter(w.Header(), status)
	g.tell(w, r, status, p)
}

// WaitFor sets Retry-After to what the error says, in seconds.
func WaitFor(h http.Header, err error) {
	if wait := quipu.AsError(err).RetryAfter; wait > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((wait+time.Second-1)/time.Second), 10))
	}
}

// RetryAfter sets the header on the statuses that mean "later".
func RetryAfter(h http.Header, status int) {
	if (status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable) && h.Get("Retry-After") == "" {
		h.Set("Retry-After", "1")
	}
}

// writeJSON answers with v. Headers and status are out when the body fails, so a failure to write means
// only that the client is gone.
func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("gateway: marshal %T: %v", v, err)) // shapes of ours always marshal
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)+1))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}

func bodyTooLarge(limit int64) error {
	return &quipu.Error{Code: quipu.CodeBodySize, Text: fmt.Sprintf("the body has more than %d bytes", limit)}
}

func usage(format string, args ...any) error {
	return &quipu.Error{Code: quipu.CodeUsage, Text: fmt.Sprintf(format, args...)}
}

// quote makes outside text safe and short enough to be repeated in a message.
func quote(s string) string { return strconv.Quote(clip(s)) }

func clip(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	s = s[:most]
	for !utf8.ValidString(s) && len(s) > most-utf8.UTFMax {
		s = s[:len(s)-1]
	}
	return strings.ToValidUTF8(s, "?") + "…"
}
