package dapr

import (
	"io"
	"maps"
	"net/http"

	"github.com/quipu-run/quipu"
)

// Limits of what PUT metadata keeps.
const (
	extendedMax      = 100
	extendedBytesMax = 4 << 10
)

type component struct {
	Name         string   `json:"name"`
	Type         string   `json:"type"`
	Version      string   `json:"version"`
	Capabilities []string `json:"capabilities"`
}

type actorRuntime struct {
	Status    string `json:"runtimeStatus"`
	HostReady bool   `json:"hostReady"`
}

type metadataReply struct {
	ID             string            `json:"id"`
	RuntimeVersion string            `json:"runtimeVersion"`
	Components     []component       `json:"components"`
	Extended       map[string]string `json:"extended"`
	ActorRuntime   actorRuntime      `json:"actorRuntime"`
}

func (d *door) metadata(w http.ResponseWriter, r *http.Request, parts []string) {
	switch {
	case len(parts) == 0 && allow(w, r, http.MethodGet):
		d.getMetadata(w, r)
	case len(parts) == 1 && allow(w, r, http.MethodPut):
		d.putMetadata(w, r, unescape(parts[0]))
	}
}

// getMetadata works outside of a call too: SDKs ask when they start.
func (d *door) getMetadata(w http.ResponseWriter, r *http.Request) {
	id := ""
	if session, err := d.opt.Session(r); err == nil {
		id = session.Function()
	} else if quipu.CodeOf(err) != quipu.CodeNoCall {
		d.fail(w, r, "ERR_METADATA_GET", err)
		return
	}
	d.mu.Lock()
	extended := maps.Clone(d.extended)
	d.mu.Unlock()
	extended["daprRuntimeVersion"] = RuntimeVersion
	capabilities := []string{"ETAG", "TRANSACTIONAL", "TTL"}
	answerWith(w, http.StatusOK, metadataReply{ID: id, RuntimeVersion: RuntimeVersion, Extended: extended,
		Components: []component{
			{quipu.StoreDefault, "state.quipu", "v1", capabilities},
			{quipu.StoreShared, "state.quipu", "v1", capabilities},
		}, ActorRuntime: actorRuntime{Status: "DISABLED"}})
}

func (d *door) putMetadata(w http.ResponseWriter, r *http.Request, key string) {
	value, err := io.ReadAll(http.MaxBytesReader(w, r.Body, extendedBytesMax))
	if err != nil {
		answer(w, http.StatusBadRequest, "ERR_BODY_READ", "failed to read request body: %v", err)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, old := d.extended[key]; !old && len(d.extended) >= extendedMax {
		answer(w, http.StatusBadRequest, "ERR_BAD_REQUEST", "there are %d attributes already, which is the most", extendedMax)
		return
	}
	d.extended[key] = string(value)
	w.WriteHeader(http.StatusNoContent)
}

// health answers 204 while the door is open: it opens when the node is ready.
func (d *door) health(w http.ResponseWriter, r *http.Request) {
	if !allow(w, r, http.MethodGet) {
		return
	}
	if want := r.URL.Query(); want.Has("appid") {
		session, err := d.opt.Session(r)
		if err == nil && want.Get("appid") != session.Function() {
			answer(w, http.StatusInternalServerError, "ERR_HEALTH_APPID_NOT_MATCH", "dapr app-id does not match")
			return
		}
	}
	w.WriteHeader(http.StatusNoContent)
}
