package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// summary is what hourly writes.
type summary struct {
	Tick    string          `json:"tick"`    // the time that the schedule called for
	Written int             `json:"written"` // summaries up to this one
	Flights int             `json:"flights"`
	Hours   map[string]hour `json:"hours"` // 00 to 23, of departure
}

type hour struct {
	Flights int    `json:"flights"`
	Minutes int    `json:"minutes"` // of delay, of all
	Busiest string `json:"busiest"` // the airport with the most flights
}

// hourly sums the airports up by hour of the day. Stats goes on meanwhile, and yet all airports are as they were at one
// moment: an atomic call reads at one place of the log, and runs again if that changed before it commits.
func hourly(body []byte) (any, error) {
	var tick struct {
		Data struct {
			Time string `json:"time"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &tick); err != nil {
		return nil, fmt.Errorf("%w: not a tick: %w", errBad, err)
	}
	all, err := readAll()
	if err != nil {
		return nil, err
	}
	last, err := readSummary()
	if err != nil {
		return nil, err
	}
	s := sumUp(all)
	s.Tick, s.Written = tick.Data.Time, last.Written+1
	return s, setAll(map[string]any{"summary": s})
}

func sumUp(all map[string]sums) summary {
	s := summary{Hours: map[string]hour{}}
	most := map[string]int{} // flights of the busiest airport of an hour
	for _, airport := range slices.Sorted(maps.Keys(all)) {
		flights := map[string]int{}
		for cell, row := range all[airport] {
			h := s.Hours[cell[:2]]
			h.Flights += row[0]
			h.Minutes += row[1]
			s.Hours[cell[:2]] = h
			s.Flights += row[0]
			flights[cell[:2]] += row[0]
		}
		for name, n := range flights {
			if h := s.Hours[name]; n > most[name] {
				h.Busiest, most[name] = airport, n
				s.Hours[name] = h
			}
		}
	}
	return s
}
