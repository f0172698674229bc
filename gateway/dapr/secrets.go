package dapr

import (
	"context"
	"fmt"
	"net/http"

	"github.com/quipu-run/quipu/internal/component"
	"google.golang.org/grpc/codes"
)

// openSecrets finds a store, and the context that it is to be asked in.
func (d *Door) openSecrets(r *http.Request, name string) (component.SecretStore, context.Context, error) {
	set, err := d.set(r)
	if err != nil {
		return nil, nil, d.problem(r, "ERR_SECRET_GET", "", err)
	}
	if store, ok := component.Of[component.SecretStore](set, name); ok {
		return store, context.WithValue(r.Context(), requestKey{}, r), nil
	}
	if !component.Any[component.SecretStore](set) {
		return nil, nil, &problem{status: http.StatusInternalServerError, code: codes.FailedPrecondition, tag: "ERR_SECRET_STORES_NOT_CONFIGURED",
			message: "secret store is not configured"}
	}
	return nil, nil, &problem{status: http.StatusUnauthorized, code: codes.InvalidArgument, tag: "ERR_SECRET_STORE_NOT_FOUND",
		message: fmt.Sprintf("failed finding secret store with key %s", name)}
}

func (d *Door) secretAllowed(r *http.Request, store, name string) bool {
	return d.opt.SecretAllowed == nil || d.opt.SecretAllowed(r, store, name)
}

// secret is nil if it is not there. Neither values nor what went wrong with them are in any error.
func (d *Door) secret(r *http.Request, name, key string, metadata map[string]string) (map[string]string, error) {
	store, ctx, err := d.openSecrets(r, name)
	if err != nil {
		return nil, err
	}
	if !d.secretAllowed(r, name, key) {
		return nil, &problem{status: http.StatusForbidden, tag: permissionDenied, message: fmt.Sprintf("access denied by policy to get %q from %q", key, name)}
	}
	values, err := store.Secret(ctx, key, metadata)
	if err != nil {
		return nil, d.secretProblem(r, fmt.Sprintf("failed getting secret with key %s from secret store %s: ", key, name), err)
	}
	return values, nil
}

// secrets are all that the request may have.
func (d *Door) secrets(r *http.Request, name string, metadata map[string]string) (map[string]map[string]string, error) {
	store, ctx, err := d.openSecrets(r, name)
	if err != nil {
		return nil, err
	}
	all, err := store.Secrets(ctx, metadata)
	if err != nil {
		return nil, d.secretProblem(r, fmt.Sprintf("failed getting secrets from secret store %s: ", name), err)
	}
	allowed := make(map[string]map[string]string, len(all))
	for key, values := range all {
		if d.secretAllowed(r, name, key) {
			allowed[key] = values
		}
	}
	return allowed, nil
}

func (d *Door) secretProblem(r *http.Request, prefix string, err error) error {
	p := d.problem(r, "ERR_SECRET_GET", prefix, err)
	p.reason = "" // Dapr gives none
	return p
}

// getSecret is GET secrets/{store}/{key}, and bulk in place of the key.
func (d *Door) getSecret(w http.ResponseWriter, r *http.Request, store, key string) {
	if !allow(w, r, http.MethodGet) {
		return
	}
	metadata := queryMetadata(r)
	w.Header().Set("Cache-Control", "no-store")
	if key == "bulk" {
		all, err := d.secrets(r, store, metadata)
		if err != nil {
			d.fail(w, r, "ERR_SECRET_GET", err)
			return
		}
		answerWith(w, http.StatusOK, all)
		return
	}
	values, err := d.secret(r, store, key, metadata)
	switch {
	case err != nil:
		d.fail(w, r, "ERR_SECRET_GET", err)
	case values == nil:
		w.WriteHeader(http.StatusNoContent)
	default:
		answerWith(w, http.StatusOK, values)
	}
}
