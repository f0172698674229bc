package dapr

import (
	"fmt"
	"net/http"

	"google.golang.org/grpc/codes"
)

// StoreSecrets is the name of the secret store that every namespace has.
const StoreSecrets = "secretstore"

// secretsOf finds what a store holds. A secret of one value has its own name as key, as in Dapr. Neither values nor
// what went wrong with them are in any error.
func (d *Door) secretsOf(r *http.Request, store string) (map[string]string, error) {
	if d.opt.Secrets == nil {
		return nil, &problem{status: http.StatusInternalServerError, code: codes.FailedPrecondition, tag: "ERR_SECRET_STORES_NOT_CONFIGURED",
			message: "secret store is not configured"}
	}
	if store != StoreSecrets {
		return nil, &problem{status: http.StatusUnauthorized, code: codes.InvalidArgument, tag: "ERR_SECRET_STORE_NOT_FOUND",
			message: fmt.Sprintf("failed finding secret store with key %s", store)}
	}
	all, err := d.opt.Secrets(r)
	if err != nil {
		p := d.problem(r, "ERR_SECRET_GET", fmt.Sprintf("failed getting secrets from secret store %s: ", store), err)
		p.reason = ""
		return nil, p
	}
	return all, nil
}

// secrets is GET secrets/{store}/{key}, and bulk in place of the key.
func (d *Door) secrets(w http.ResponseWriter, r *http.Request, store, key string) {
	if !allow(w, r, http.MethodGet) {
		return
	}
	all, err := d.secretsOf(r, store)
	if err != nil {
		d.fail(w, r, "ERR_SECRET_GET", err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	if key == "bulk" {
		answerWith(w, http.StatusOK, bySecret(all))
		return
	}
	value, ok := all[key]
	if !ok {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	answerWith(w, http.StatusOK, map[string]string{key: value})
}

func bySecret(all map[string]string) map[string]map[string]string {
	out := make(map[string]map[string]string, len(all))
	for name, value := range all {
		out[name] = map[string]string{name: value}
	}
	return out
}
