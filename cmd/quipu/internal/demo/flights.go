package demo

import (
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
)

// Flight is one line of the data, in the form that the function stats takes.
type Flight struct {
	Date     string `json:"date"` // 2001/01/01 00:47
	Delay    int    `json:"delay"`
	Distance int    `json:"distance"`
	Origin   string `json:"origin"`
}

const flightsMax = 10_000_000

// ReadFlights reads a compressed table with the columns date, delay, distance, origin and more.
func ReadFlights(r io.Reader) ([]Flight, error) {
	zip, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("flights: %w", err)
	}
	lines := csv.NewReader(zip)
	lines.ReuseRecord = true
	var flights []Flight
	for n := 0; n <= flightsMax; n++ {
		line, err := lines.Read()
		if errors.Is(err, io.EOF) {
			return flights, nil
		}
		if err != nil {
			return nil, fmt.Errorf("flights: %w", err)
		}
		if n == 0 { // the names of the columns
			continue
		}
		if len(line) < 4 {
			return nil, fmt.Errorf("flights: line %d has %d columns", n+1, len(line))
		}
		delay, err1 := strconv.Atoi(line[1])
		distance, err2 := strconv.Atoi(line[2])
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("flights: line %d: %w", n+1, err)
		}
		flights = append(flights, Flight{line[0], delay, distance, line[3]})
	}
	return nil, fmt.Errorf("flights: more than %d", flightsMax)
}

// Table is airport -> "hour/band of distance" -> flights, minutes of delay, then a histogram of delays.
type Table map[string]map[string][]int

var (
	bandEdges  = []int{250, 500, 1000, 2000}    // miles
	delayEdges = []int{-10, 0, 15, 30, 60, 120} // minutes
)

// Direct computes the table from the flights themselves, without any platform: what the functions must
// come to.
func Direct(flights []Flight) Table {
	t := Table{}
	for _, f := range flights {
		if t[f.Origin] == nil {
			t[f.Origin] = map[string][]int{}
		}
		cell := fmt.Sprintf("%s/%d", f.Date[11:13], above(bandEdges, f.Distance))
		row := t[f.Origin][cell]
		if row == nil {
			row = make([]int, 2+len(delayEdges)+1)
			t[f.Origin][cell] = row
		}
		row[0]++
		row[1] += f.Delay
		row[2+above(delayEdges, f.Delay)]++
	}
	return t
}

// Hour is what the functions know of an hour of the day: its flights, minutes of delay, and the airport with the most
// flights.
type Hour struct {
	Flights int    `json:"flights"`
	Minutes int    `json:"minutes"`
	Busiest string `json:"busiest"`
}

// DirectHours computes the summary from the flights themselves.
func DirectHours(flights []Flight) map[string]Hour {
	hours, count := map[string]Hour{}, map[[2]string]int{}
	for _, f := range flights {
		name := f.Date[11:13]
		h := hours[name]
		h.Flights++
		h.Minutes += f.Delay
		hours[name] = h
		count[[2]string{name, f.Origin}]++
	}
	for at, n := range count {
		name, airport := at[0], at[1]
		h := hours[name]
		if most := count[[2]string{name, h.Busiest}]; n > most || n == most && airport < h.Busiest {
			h.Busiest = airport
			hours[name] = h
		}
	}
	return hours
}

// above counts the edges that are not above x.
func above(edges []int, x int) int {
	n := 0
	for n < len(edges) && x >= edges[n] {
		n++
	}
	return n
}

// total adds up an airport: flights, minutes, histogram.
func (t Table) total(airport string) []int {
	sum := make([]int, 2+len(delayEdges)+1)
	for _, row := range t[airport] {
		for i, n := range row {
			if i < len(sum) {
				sum[i] += n
			}
		}
	}
	return sum
}

// flights counts all.
func (t Table) flights() (n int) {
	for airport := range t {
		n += t.total(airport)[0]
	}
	return n
}

// busiest lists the n airports with the most flights.
func (t Table) busiest(n int) []string {
	names := slices.Sorted(maps.Keys(t))
	slices.SortStableFunc(names, func(a, b string) int { return t.total(b)[0] - t.total(a)[0] })
	return names[:min(n, len(names))]
}

// differences lists cells that are not the same in both, as "airport hour/band".
func differences(a, b Table) (found []string) {
	for _, pair := range [][2]Table{{a, b}, {b, a}} {
		for airport, cells := range pair[0] {
			for cell, row := range cells {
				if !slices.Equal(row, pair[1][airport][cell]) {
					found = append(found, airport+" "+cell)
				}
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// hourDifferences lists hours that are not the same in both.
func hourDifferences(a, b map[string]Hour) (found []string) {
	for n := range 24 {
		name := fmt.Sprintf("%02d", n)
		if a[name] != b[name] {
			found = append(found, fmt.Sprintf("hour %s: %+v, want %+v", name, a[name], b[name]))
		}
	}
	return found
}
