package main

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// flight is what a client sends, and what the topic flights carries.
type flight struct {
	Date     string `json:"date"` // 2001/01/01 00:47
	Delay    int    `json:"delay"`
	Distance int    `json:"distance"`
	Origin   string `json:"origin"`
}

func (f flight) check() error {
	if len(f.Date) < 13 || f.Origin == "" {
		return fmt.Errorf("%w: flight without date or origin: %+v", errBad, f)
	}
	return nil
}

// ingest publishes each flight of a request. A client that got no answer sends the request again with the same
// Idempotency-Key: then nothing is published twice, since the key is kept in the commit that publishes.
func ingest(body []byte) (any, error) {
	var flights []flight
	if err := json.Unmarshal(body, &flights); err != nil {
		return nil, fmt.Errorf("%w: not a list of flights: %w", errBad, err)
	}
	events := make([]event, len(flights))
	for i, f := range flights {
		if err := f.check(); err != nil {
			return nil, err
		}
		events[i] = event{ID: strconv.Itoa(i), Data: f, Type: "application/json"}
	}
	return map[string]int{"published": len(flights)}, publish("flights", events)
}
