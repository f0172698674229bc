package call

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
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

// fingerprint tells requests with one idempotency key apart.
func (q *request) fingerprint() string {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q ", q.Method, q.Path, q.RawQuery)
	h.Write(q.body)
	return hex.EncodeToString(h.Sum(nil)[:16])
}
