// Flights is an application of four functions in one program: the triggers in quipu.yaml say which paths each gets.
//
// It is ordinary code: it reads, adds, writes and publishes, through Dapr's HTTP API. Because the functions that change
// anything are declared atomic, a crash at any line, or two instances at the same airport, lose and double nothing.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("POST /flights", answer(ingest))
	http.HandleFunc("POST /stats", answer(stats))
	http.HandleFunc("POST /hourly", answer(hourly))
	http.HandleFunc("GET /table", answer(table))
	http.HandleFunc("GET /hours", answer(hours))
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// serve listens where the platform asks for it.
func serve() error {
	network, address := "unix", os.Getenv("QUIPU_SOCKET")
	if address == "" {
		network, address = "tcp", "127.0.0.1:"+os.Getenv("PORT")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	return http.Serve(l, nil)
}

// errBad is a request that cannot be understood.
var errBad = errors.New("bad request")

// answer makes an HTTP handler of a function. A status of 400 or above commits nothing.
func answer(function func(body []byte) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var reply any
		body, err := io.ReadAll(r.Body)
		if err == nil {
			reply, err = function(body)
		}
		if err != nil {
			status := http.StatusInternalServerError
			if errors.Is(err, errBad) {
				status = http.StatusBadRequest
			}
			http.Error(w, err.Error(), status)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(reply); err != nil {
			fmt.Fprintln(os.Stderr, "write the reply:", err)
		}
	}
}
