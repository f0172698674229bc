// Package statequery is Dapr's query of a state store: which values have what a filter asks for, and in which order they
// come. It knows JSON alone; who asks brings the items.
//
// Names are paths like person.org; a part that is a number is also a place in a list. A value that is not JSON, or that
// lacks what a filter names, is found by NEQ alone. Numbers compare as numbers, text by its bytes; nothing is converted.
package statequery

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Limits of a query.
const (
	depthMax   = 32   // of filters in filters
	filtersMax = 1000 // of all of them, values of IN included
	sortMax    = 16
)

// Query is one that was checked. The zero value finds everything.
type Query struct {
	Limit  int // of a page, 0 none
	Skip   int // items of the pages before
	filter filter
	order  []sorting
}

type sorting struct {
	path       []string
	descending bool
}

// Parse reads {"filter":{…},"sort":[{"key":…,"order":"ASC"}],"page":{"limit":n,"token":…}}.
func Parse(body []byte) (*Query, error) {
	var in struct {
		Filter json.RawMessage `json:"filter"`
		Sort   []struct{ Key, Order string }
		Page   struct {
			Limit int
			Token string
		}
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, fmt.Errorf("failed to parse JSON query body: %w", err)
	}
	if len(in.Sort) > sortMax {
		return nil, fmt.Errorf("there are %d sort keys; the most is %d", len(in.Sort), sortMax)
	}
	q := &Query{Limit: in.Page.Limit}
	for _, s := range in.Sort {
		one, err := sortingOf(s.Key, s.Order)
		if err != nil {
			return nil, err
		}
		q.order = append(q.order, one)
	}
	var err error
	if q.Skip, err = skipOf(in.Page.Limit, in.Page.Token); err != nil {
		return nil, err
	}
	p := parser{}
	q.filter, err = p.whole(in.Filter)
	return q, err
}

func sortingOf(key, order string) (sorting, error) {
	path, err := pathOf(key)
	if err != nil {
		return sorting{}, err
	}
	switch strings.ToUpper(order) {
	case "", "ASC":
		return sorting{path: path}, nil
	case "DESC":
		return sorting{path: path, descending: true}, nil
	}
	return sorting{}, fmt.Errorf("sort order %.20q must be ASC or DESC", order)
}

// skipOf reads a token: how many items the pages before had.
func skipOf(limit int, token string) (int, error) {
	if limit < 0 || limit > math.MaxInt32 {
		return 0, errors.New("page limit must be a number from 0 to 2147483647")
	}
	if token == "" {
		return 0, nil
	}
	skip, err := strconv.Atoi(token)
	if err != nil || skip < 0 || skip > math.MaxInt32 {
		return 0, fmt.Errorf("page token %.20q is none of an answer", token)
	}
	return skip, nil
}

func pathOf(key string) ([]string, error) {
	parts := strings.Split(key, ".")
	for _, part := range parts {
		if part == "" {
			return nil, fmt.Errorf("%.100q is no path like person.name", key)
		}
	}
	return parts, nil
}

// Token is that of the page after one that ends before the item at place n.
func Token(n int) string { return strconv.Itoa(n) }

// Sorted tells whether the query has an order of its own.
func (q *Query) Sorted() bool { return len(q.order) > 0 }
