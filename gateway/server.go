package gateway

import (
	"log/slog"
	"net/http"
	"time"
)

// Limits of connections, for every listener of ours.
const (
	headerBytesMax    = 64 << 10
	headerTimeout     = 5 * time.Second
	idleTimeout       = 2 * time.Minute
	concurrentStreams = 1000
)

// NewServer is an http.Server for HTTP/1.1 and for HTTP/2 without TLS, that closes connections which send
// their headers too slowly or without end. Bodies have no time limit of their own here: the admin API sets
// one, and a call has its timeout.
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           h,
		Protocols:         protocols,
		MaxHeaderBytes:    headerBytesMax,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: concurrentStreams},
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug), // what clients did wrong
	}
}
