package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// sums of an airport: "hour/band" -> flights, minutes of delay, then a histogram of delays.
type sums map[string][]int

var (
	bandEdges  = []int{250, 500, 1000, 2000}    // miles
	delayEdges = []int{-10, 0, 15, 30, 60, 120} // minutes
)

// stats adds flights, up to a hundred in a call, to the sums of their airports. That the events are done is part
// of the same commit as the sums, so each flight is counted exactly once.
func stats(body []byte) (any, error) {
	var events []struct {
		Data flight `json:"data"`
	}
	if err := json.Unmarshal(body, &events); err != nil {
		return nil, fmt.Errorf("%w: not events of flights: %w", errBad, err)
	}
	byOrigin := map[string][]flight{}
	for _, e := range events {
		if err := e.Data.check(); err != nil {
			return nil, err
		}
		byOrigin[e.Data.Origin] = append(byOrigin[e.Data.Origin], e.Data)
	}
	return map[string]int{"added": len(events)}, add(byOrigin)
}

// add reads the sums of airports, adds to them and writes them.
func add(byOrigin map[string][]flight) error {
	all, err := readSums(slices.Collect(maps.Keys(byOrigin)))
	if err != nil {
		return err
	}
	changes := map[string]any{}
	var added []string
	for origin, flights := range byOrigin {
		s := all[origin]
		if s == nil {
			s = sums{}
			added = append(added, origin)
		}
		for _, f := range flights {
			s.add(f)
		}
		changes["airport/"+origin] = s
	}
	if len(added) > 0 {
		known, err := readAirports()
		if err != nil {
			return err
		}
		changes["airports"] = slices.Sorted(slices.Values(append(known, added...)))
	}
	return setAll(changes)
}

func (s sums) add(f flight) {
	band, _ := slices.BinarySearch(bandEdges, f.Distance+1) // the first edge above the distance
	cell := fmt.Sprintf("%s/%d", f.Date[11:13], band)
	row := s[cell]
	if row == nil {
		row = make([]int, 2+len(delayEdges)+1)
	}
	late, _ := slices.BinarySearch(delayEdges, f.Delay+1)
	row[0]++
	row[1] += f.Delay
	row[2+late]++
	s[cell] = row
}
