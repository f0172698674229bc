package gateway

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// admit decides whether a request may use what is ours. CodeToken, CodeOrigin.
func admit(r *http.Request, token string) error {
	if token != "" {
		if TokenEqual(tokenOf(r), token) {
			return nil
		}
		return &quipu.Error{Code: quipu.CodeToken, Hint: quipu.Codes[quipu.CodeToken].Next}
	}
	return CheckLocal(r)
}

// CheckLocal refuses what a program on this machine would not send: a request addressed to another host, or
// made by a web page of another origin. CodeOrigin.
func CheckLocal(r *http.Request) error {
	if !isLoopback(r.Host) {
		return foreign("the request is addressed to " + quote(r.Host) + ", which is not loopback")
	}
	return CheckOrigin(r)
}

// CheckOrigin refuses what a web page of another origin asks for. CodeOrigin.
func CheckOrigin(r *http.Request) error {
	if origin := r.Header.Get("Origin"); origin != "" && !sameOrigin(origin, r.Host) {
		return foreign("the request comes from a page of " + quote(origin))
	}
	return nil
}

// TokenEqual compares in a time that tells nothing about where, or in what length, they differ.
func TokenEqual(given, want string) bool {
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

func tokenOf(r *http.Request) string {
	if t := r.Header.Get(sdk.HeaderToken); t != "" {
		return t
	}
	return bearerOf(r)
}

func bearerOf(r *http.Request) string {
	scheme, t, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(t)
	}
	return ""
}

func isLoopback(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.Trim(strings.ToLower(host), "[]"), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// sameOrigin is strict about the port: another program's page on this machine is foreign too.
func sameOrigin(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, host)
}

func foreign(text string) error {
	return &quipu.Error{Code: quipu.CodeOrigin, Text: text, Hint: quipu.Codes[quipu.CodeOrigin].Next}
}
