package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
)

// Everything here is Dapr's HTTP API; an SDK of Dapr would do as well.
var dapr = "http://127.0.0.1:" + os.Getenv("DAPR_HTTP_PORT") + "/v1.0"

// readAirports lists the airports that have sums.
func readAirports() ([]string, error) {
	var list []string
	values, err := getAll("airports")
	if err == nil && len(values) > 0 {
		err = json.Unmarshal(values["airports"], &list)
	}
	return list, err
}

// readSums reads the sums of airports. One that has none is not in the answer.
func readSums(airports []string) (map[string]sums, error) {
	keys := make([]string, len(airports))
	for i, airport := range airports {
		keys[i] = "airport/" + airport
	}
	values, err := getAll(keys...)
	if err != nil {
		return nil, err
	}
	all := map[string]sums{}
	for key, value := range values {
		var s sums
		if err := json.Unmarshal(value, &s); err != nil {
			return nil, err
		}
		all[key[len("airport/"):]] = s
	}
	return all, nil
}

func readAll() (map[string]sums, error) {
	airports, err := readAirports()
	if err != nil {
		return nil, err
	}
	return readSums(airports)
}

func readSummary() (summary, error) {
	var s summary
	values, err := getAll("summary")
	if err == nil && len(values) > 0 {
		err = json.Unmarshal(values["summary"], &s)
	}
	return s, err
}

// getAll reads keys in one request. A key without a value is not in the answer.
func getAll(keys ...string) (map[string]json.RawMessage, error) {
	var items []struct {
		Key  string          `json:"key"`
		Data json.RawMessage `json:"data"`
	}
	if err := post("/state/shared/bulk", map[string]any{"keys": keys}, &items); err != nil {
		return nil, err
	}
	values := map[string]json.RawMessage{}
	for _, item := range items {
		if item.Data != nil {
			values[item.Key] = item.Data
		}
	}
	return values, nil
}

// setAll writes many keys in one request.
func setAll(changes map[string]any) error {
	var items []map[string]any
	for key, value := range changes {
		items = append(items, map[string]any{"key": key, "value": value})
	}
	return post("/state/shared", items, nil)
}

// event is an entry of a bulk publish; its id is there to name it in an error.
type event struct {
	ID   string `json:"entryId"`
	Type string `json:"contentType"`
	Data any    `json:"event"`
}

// publish publishes many events in one request.
func publish(topic string, events []event) error {
	return post("/publish/bulk/pubsub/"+topic, events, nil)
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
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s: %s: %s", path, resp.Status, reply)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(reply, out)
}
