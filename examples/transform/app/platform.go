package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
)

// Everything here is Dapr's HTTP API; an SDK of Dapr would do as well.
var dapr = "http://127.0.0.1:" + os.Getenv("DAPR_HTTP_PORT") + "/v1.0"

// get reads a key into value, and tells whether there is one.
func get(key string, value any) (bool, error) {
	reply, err := send("GET", "/state/shared/"+url.PathEscape(key), nil)
	if err != nil || len(reply) == 0 {
		return false, err
	}
	return true, json.Unmarshal(reply, value)
}

func put(key string, value any) error {
	_, err := send("POST", "/state/shared", []map[string]any{{"key": key, "value": value}})
	return err
}

func publish(topic string, data any) error {
	_, err := send("POST", "/publish/pubsub/"+topic, data)
	return err
}

func send(method, path string, in any) ([]byte, error) {
	body := &bytes.Buffer{}
	if in != nil {
		if err := json.NewEncoder(body).Encode(in); err != nil {
			return nil, err
		}
	}
	r, err := http.NewRequest(method, dapr+path, body)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("dapr-api-token", os.Getenv("DAPR_API_TOKEN"))
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	reply, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s: %s: %s", path, resp.Status, reply)
	}
	return reply, err
}

// event is the data of the event that a request brings.
func event[T any](r *http.Request) (T, error) {
	var e struct {
		Data T `json:"data"`
	}
	err := json.NewDecoder(r.Body).Decode(&e)
	return e.Data, err
}

// refusal is an error that is the caller's.
type refusal struct {
	status int
	text   string
}

func (r refusal) Error() string { return r.text }

func refuse(status int, text string) error { return refusal{status, text} }

// answer makes an HTTP handler of a function. A status of 400 or above commits nothing.
func answer(function func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		reply, err := function(r)
		if err != nil {
			refused := refusal{status: http.StatusInternalServerError}
			errors.As(err, &refused)
			http.Error(w, err.Error(), refused.status)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(reply); err != nil {
			fmt.Fprintln(os.Stderr, "write the reply:", err)
		}
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
