// Table serves the sums that stats keeps, as one JSON object: airport -> "hour/band" -> row.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
)

var state = "http://127.0.0.1:" + os.Getenv("DAPR_HTTP_PORT") + "/v1.0/state/shared"

func main() {
	http.HandleFunc("GET /table", handle)
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

func handle(w http.ResponseWriter, _ *http.Request) {
	table, err := read()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(table); err != nil {
		fmt.Fprintln(os.Stderr, "write table:", err)
	}
}

func read() (map[string]json.RawMessage, error) {
	var airports []string
	if err := get("/airports", &airports); err != nil {
		return nil, err
	}
	keys := make([]string, len(airports))
	for i, airport := range airports {
		keys[i] = "airport/" + airport
	}
	var items []struct {
		Key  string          `json:"key"`
		Data json.RawMessage `json:"data"`
	}
	if err := post("/bulk", map[string]any{"keys": keys}, &items); err != nil {
		return nil, err
	}
	table := map[string]json.RawMessage{}
	for _, item := range items {
		table[item.Key[len("airport/"):]] = item.Data
	}
	return table, nil
}

func get(path string, out any) error { return send("GET", path, nil, out) }

func post(path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return send("POST", path, body, out)
}

func send(method, path string, in []byte, out any) error {
	r, err := http.NewRequest(method, state+path, bytes.NewReader(in))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("dapr-api-token", os.Getenv("DAPR_API_TOKEN"))
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	return decode(resp, out)
}

func decode(resp *http.Response, out any) error {
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s: %s", resp.Status, body)
	}
	if resp.StatusCode == http.StatusNoContent { // no such key yet
		return nil
	}
	return json.Unmarshal(body, out)
}
