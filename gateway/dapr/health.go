package dapr

import (
	"net/http"
	"strings"
)

// health answers 204 while the door is open, which it is when the node is ready, once the application was found. healthz/outbound is what an application may wait for
// before it uses its components.
func (d *Door) health(w http.ResponseWriter, r *http.Request) {
	if !allow(w, r, http.MethodGet) {
		return
	}
	if strings.HasSuffix(r.URL.Path, "/outbound") {
		if d.opt.Ready != nil && !d.opt.Ready(r) {
			answer(w, http.StatusInternalServerError, "ERR_OUTBOUND_HEALTH_NOT_READY", "dapr outbound is not ready")
			return
		}
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if d.opt.Running != nil && !d.opt.Running(r) {
		answer(w, http.StatusInternalServerError, "ERR_HEALTH_NOT_READY", "dapr is not ready: [app]")
		return
	}
	if want := r.URL.Query(); want.Has("appid") {
		if id, err := d.appID(r); err == nil && id != "" && want.Get("appid") != id {
			answer(w, http.StatusInternalServerError, "ERR_HEALTH_APPID_NOT_MATCH", "dapr app-id does not match")
			return
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

// headerForce asks that an application is ended without waiting for what it does.
const headerForce = "dapr-force-shutdown"

// shutdown is POST shutdown.
func (d *Door) shutdown(w http.ResponseWriter, r *http.Request) {
	if !allow(w, r, http.MethodPost) {
		return
	}
	if d.opt.Shutdown == nil {
		answer(w, http.StatusForbidden, permissionDenied, noShutdown)
		return
	}
	d.endApp(r)
	w.WriteHeader(http.StatusNoContent)
}

func (d *Door) endApp(r *http.Request) {
	d.opt.Shutdown(r, strings.EqualFold(r.Header.Get(headerForce), "true"))
}
