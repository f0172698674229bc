package gateway

import (
	"net/http"
	"time"

	"github.com/quipu-run/quipu"
)

// backupWriteMax is how long a client may take to read on. A backup holds segments of the log, so one that nobody reads must end.
const backupWriteMax = time.Minute

func (g *Gateway) backup(a *ask) error {
	if g.opt.Backup == nil {
		return &quipu.Error{Code: quipu.CodeUsage, Text: "this node makes no backups"}
	}
	a.Header().Set("Content-Type", tarType)
	ctx, end := g.untilDrain(a.Context())
	defer end()
	return g.opt.Backup(ctx, &impatient{a.ResponseWriter, http.NewResponseController(a.ResponseWriter)})
}

// impatient gives each write a time.
type impatient struct {
	to   http.ResponseWriter
	conn *http.ResponseController
}

func (w *impatient) Write(p []byte) (int, error) {
	// Not every writer has deadlines (HTTP/2 streams, tests); those have other limits.
	_ = w.conn.SetWriteDeadline(time.Now().Add(backupWriteMax))
	return w.to.Write(p)
}
