// Consumers is what the test of kills deploys: a publisher, and consumers that leave evidence of what they got.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
)

// knot is an event: the n-th of a cord, from 1.
type knot struct {
	ID   string `json:"id"`
	Cord string `json:"cord"`
	N    int    `json:"n"`
}

var dapr = "http://127.0.0.1:" + os.Getenv("DAPR_HTTP_PORT") + "/v1.0"

func main() {
	http.HandleFunc("POST /publish", handle(publish))
	http.HandleFunc("POST /once", handle(eventsOf(once)))
	http.HandleFunc("POST /ordered", handle(eventsOf(ordered)))
	http.HandleFunc("POST /write", handle(eventsOf(write)))
	l, err := net.Listen("unix", os.Getenv("QUIPU_SOCKET"))
	if err == nil {
		err = http.Serve(l, nil)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func handle(function func(body []byte) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = function(body)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}
}

func eventsOf(function func([]knot) error) func([]byte) error {
	return func(body []byte) error {
		var events []struct {
			Data knot `json:"data"`
		}
		if err := json.Unmarshal(body, &events); err != nil {
			return err
		}
		knots := make([]knot, len(events))
		for i, e := range events {
			knots[i] = e.Data
		}
		return function(knots)
	}
}

// publish publishes the knots of a request.
func publish(body []byte) error {
	var knots []knot
	if err := json.Unmarshal(body, &knots); err != nil {
		return err
	}
	entries := make([]map[string]any, len(knots))
	for i, k := range knots {
		entries[i] = map[string]any{"entryId": strconv.Itoa(i), "contentType": "application/json", "event": k}
	}
	return post("/publish/bulk/pubsub/knots", entries, nil)
}

// once counts how often each knot came: once/ID.
func once(knots []knot) error {
	keys := make([]string, len(knots))
	for i, k := range knots {
		keys[i] = "once/" + k.ID
	}
	counts, err := get(keys)
	if err != nil {
		return err
	}
	for _, key := range keys {
		counts[key]++
	}
	return set(counts)
}

// ordered keeps the last knot of each cord in last/CORD, and counts in wrong/CORD those that do not follow it.
func ordered(knots []knot) error {
	var keys []string
	for _, k := range knots {
		keys = append(keys, "last/"+k.Cord, "wrong/"+k.Cord)
	}
	state, err := get(keys)
	if err != nil {
		return err
	}
	for _, k := range knots {
		if k.N != state["last/"+k.Cord]+1 {
			state["wrong/"+k.Cord]++
		}
		state["last/"+k.Cord] = k.N
	}
	return set(state)
}

// write appends the knots to a file, outside of the platform.
func write(knots []knot) error {
	f, err := os.OpenFile(os.Getenv("EVIDENCE"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, k := range knots {
		if _, err := fmt.Fprintf(f, "%s %s %d\n", k.ID, k.Cord, k.N); err != nil {
			return err
		}
	}
	return nil
}

func get(keys []string) (map[string]int, error) {
	var items []struct {
		Key  string `json:"key"`
		Data *int   `json:"data"`
	}
	if err := post("/state/shared/bulk", map[string]any{"keys": keys}, &items); err != nil {
		return nil, err
	}
	values := map[string]int{}
	for _, item := range items {
		if item.Data != nil {
			values[item.Key] = *item.Data
		}
	}
	return values, nil
}

func set(values map[string]int) error {
	var items []map[string]any
	for key, value := range values {
		items = append(items, map[string]any{"key": key, "value": value})
	}
	return post("/state/shared", items, nil)
}

func post(path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	r, err := http.NewRequest("POST", dapr+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("dapr-api-token", os.Getenv("DAPR_API_TOKEN"))
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	reply, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s: %s: %s", path, resp.Status, reply)
	}
	if err != nil || out == nil {
		return err
	}
	return json.Unmarshal(reply, out)
}
