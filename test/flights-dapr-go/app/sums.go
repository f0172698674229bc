package main

import (
	"fmt"
	"maps"
	"slices"
)

type flight struct {
	Date     string `json:"date"` // 2001/01/01 00:47
	Delay    int    `json:"delay"`
	Distance int    `json:"distance"`
	Origin   string `json:"origin"`
}

// sums of an airport: "hour/band" -> flights, minutes of delay, then a histogram of delays.
type sums map[string][]int

var (
	bandEdges  = []int{250, 500, 1000, 2000}    // miles
	delayEdges = []int{-10, 0, 15, 30, 60, 120} // minutes
)

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

type summary struct {
	Written int             `json:"written"` // summaries up to this one
	Flights int             `json:"flights"`
	Hours   map[string]hour `json:"hours"` // 00 to 23, of departure
}

type hour struct {
	Flights int    `json:"flights"`
	Minutes int    `json:"minutes"` // of delay, of all
	Busiest string `json:"busiest"` // the airport with the most flights
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
