package call

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"regexp"
)

// requestURL is the URL of a path that is already escaped; it goes to the function unchanged.
func requestURL(escaped, query string) *url.URL {
	if escaped == "" {
		escaped = "/"
	}
	path, err := url.PathUnescape(escaped)
	if err != nil {
		path, escaped = escaped, ""
	}
	return &url.URL{Scheme: "http", Host: "function", Path: path, RawPath: escaped, RawQuery: query}
}

var traceForm = regexp.MustCompile(`^00-([0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})$`)

// traceparent continues the trace of a request, or starts one (W3C Trace Context, version 00).
func traceparent(incoming string) string {
	var id [24]byte
	rand.Read(id[:]) // never fails
	trace, flags := hex.EncodeToString(id[8:]), "01"
	if incoming != "" {
		if found := traceForm.FindStringSubmatch(incoming); found != nil {
			trace, flags = found[1], found[2]
		}
	}
	return "00-" + trace + "-" + hex.EncodeToString(id[:8]) + "-" + flags
}

// fingerprint tells requests with one idempotency key apart.
func (q *request) fingerprint() string {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q ", q.Method, q.Path, q.RawQuery)
	h.Write(q.body)
	return hex.EncodeToString(h.Sum(nil)[:16])
}
