// Counter adds one to the key in the path, as its namesake in app does, with sdk/fn.
package main

import (
	"fmt"
	"net/http"
	"os"

	"github.com/quipu-run/quipu/sdk/fn"
)

func main() {
	mux := http.NewServeMux()
	mux.HandleFunc("/fncount/{key}", handle)
	mux.HandleFunc("/fncounts/{key}", handle)
	fmt.Fprintln(os.Stderr, fn.Serve(mux))
	os.Exit(1)
}

func handle(w http.ResponseWriter, r *http.Request) {
	key, n := "bench-"+r.PathValue("key"), 0
	_, err := fn.Get(r.Context(), "shared", key, &n)
	if err == nil {
		n++
		err = fn.Set(r.Context(), "shared", key, n)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprintln(w, n)
}
