package statequery

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"
)

// filter tells whether a value has what is asked for.
type filter func(value gjson.Result) bool

// Match tells whether a value is one that the query finds.
func (q *Query) Match(value []byte) bool {
	if q.filter == nil {
		return true
	}
	if !gjson.ValidBytes(value) {
		value = nil
	}
	return q.filter(gjson.ParseBytes(value))
}

// Key is what items of a query are compared by.
type Key []gjson.Result

// Key takes it out of a value. It keeps no reference to the value.
func (q *Query) Key(value []byte) Key {
	if !q.Sorted() || !gjson.ValidBytes(value) {
		return make(Key, len(q.order))
	}
	parsed, key := gjson.ParseBytes(value), make(Key, 0, len(q.order))
	for _, s := range q.order {
		found := at(parsed, s.path)
		found.Raw, found.Str = strings.Clone(found.Raw), strings.Clone(found.Str)
		key = append(key, found)
	}
	return key
}

// Compare orders two keys; 0 leaves them in the order that they came in.
func (q *Query) Compare(a, b Key) int {
	for i, s := range q.order {
		c := rank(a[i]) - rank(b[i])
		if c == 0 {
			c = compare(a[i], b[i])
		}
		if c != 0 && s.descending {
			return -c
		}
		if c != 0 {
			return c
		}
	}
	return 0
}

// rank orders kinds: what is missing, false, true, numbers, text, the rest.
func rank(r gjson.Result) int {
	switch r.Type {
	case gjson.False:
		return 1
	case gjson.True:
		return 2
	case gjson.Number:
		return 3
	case gjson.String:
		return 4
	case gjson.JSON:
		return 5
	}
	return 0
}

// compare is of two of one kind that has an order; others are alike.
func compare(a, b gjson.Result) int {
	switch a.Type {
	case gjson.String:
		return strings.Compare(a.Str, b.Str)
	case gjson.Number:
		return compareNumbers(a, b)
	}
	return 0
}

// compareNumbers is exact for whole ones, which a float64 is not.
func compareNumbers(a, b gjson.Result) int {
	m, errM := strconv.ParseInt(a.Raw, 10, 64)
	n, errN := strconv.ParseInt(b.Raw, 10, 64)
	whole := errM == nil && errN == nil
	switch {
	case whole && m < n, !whole && a.Num < b.Num:
		return -1
	case whole && m > n, !whole && a.Num > b.Num:
		return 1
	}
	return 0
}

// at follows a path.
func at(r gjson.Result, path []string) gjson.Result {
	for _, part := range path {
		switch {
		case r.IsObject():
			r = r.Get(gjson.Escape(part))
		case r.IsArray() && isPlace(part):
			r = r.Get(part)
		default:
			return gjson.Result{}
		}
	}
	return r
}

func isPlace(part string) bool {
	for _, c := range part {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// parser counts what it has read.
type parser struct{ filters int }

func (p *parser) whole(raw json.RawMessage) (filter, error) {
	if text := bytes.TrimSpace(raw); len(text) == 0 || string(text) == "null" || string(text) == "{}" {
		return nil, nil
	}
	return p.filter(raw, 1)
}

// filter reads {"OPERATOR": …}.
func (p *parser) filter(raw json.RawMessage, depth int) (filter, error) {
	var unit map[string]json.RawMessage
	if err := json.Unmarshal(raw, &unit); err != nil || unit == nil {
		return nil, errors.New("filter unit must be a map")
	}
	if len(unit) != 1 {
		return nil, errors.New("filter unit must have a single element")
	}
	if p.filters++; p.filters > filtersMax || depth > depthMax {
		return nil, fmt.Errorf("there may be %d filters and values, %d in one another", filtersMax, depthMax)
	}
	for name, value := range unit {
		switch name {
		case "AND", "OR":
			return p.several(name, value, depth)
		case "EQ", "NEQ", "GT", "GTE", "LT", "LTE", "IN":
			return p.one(name, value)
		}
		return nil, fmt.Errorf("unsupported filter %.40q", name)
	}
	return nil, nil
}

func (p *parser) several(name string, raw json.RawMessage, depth int) (filter, error) {
	var units []json.RawMessage
	if err := json.Unmarshal(raw, &units); err != nil {
		return nil, fmt.Errorf("%s filter must be an array", name)
	}
	if len(units) < 2 {
		return nil, fmt.Errorf("%s filter must contain at least two entries", name)
	}
	var filters []filter
	for _, unit := range units {
		f, err := p.filter(unit, depth+1)
		if err != nil {
			return nil, err
		}
		filters = append(filters, f)
	}
	any := name == "OR"
	return func(r gjson.Result) bool {
		for _, f := range filters {
			if f(r) == any {
				return any
			}
		}
		return !any
	}, nil
}

// one reads {"path": value} of an operator that looks at one place.
func (p *parser) one(name string, raw json.RawMessage) (filter, error) {
	var pair map[string]json.RawMessage
	if err := json.Unmarshal(raw, &pair); err != nil || pair == nil {
		return nil, fmt.Errorf("%s filter must be a map", name)
	}
	if len(pair) != 1 {
		return nil, fmt.Errorf("%s filter must contain a single key/value pair", name)
	}
	for key, value := range pair {
		path, err := pathOf(key)
		if err != nil {
			return nil, err
		}
		holds, err := p.operator(name, value)
		if err != nil {
			return nil, err
		}
		return func(r gjson.Result) bool { return holds(at(r, path)) }, nil
	}
	return nil, nil
}

func (p *parser) operator(name string, raw json.RawMessage) (filter, error) {
	if name == "IN" {
		return p.in(raw)
	}
	want, err := operand(raw)
	if err != nil {
		return nil, err
	}
	switch name {
	case "EQ":
		return func(r gjson.Result) bool { return same(r, want) }, nil
	case "NEQ":
		return func(r gjson.Result) bool { return !same(r, want) }, nil
	}
	if want.Type != gjson.Number && want.Type != gjson.String {
		return nil, fmt.Errorf("unsupported type of value %.40s; %s needs a number or a text", raw, name)
	}
	return func(r gjson.Result) bool {
		if r.Type != want.Type {
			return false
		}
		c := compare(r, want)
		return c == 0 && strings.HasSuffix(name, "E") || c > 0 && name[0] == 'G' || c < 0 && name[0] == 'L'
	}, nil
}

func (p *parser) in(raw json.RawMessage) (filter, error) {
	var values []json.RawMessage
	if err := json.Unmarshal(raw, &values); err != nil {
		return nil, errors.New("IN filter value must be an array")
	}
	if p.filters += len(values); p.filters > filtersMax {
		return nil, fmt.Errorf("there may be %d filters and values", filtersMax)
	}
	var wants []gjson.Result
	for _, value := range values {
		want, err := operand(value)
		if err != nil {
			return nil, err
		}
		wants = append(wants, want)
	}
	return func(r gjson.Result) bool {
		for _, want := range wants {
			if same(r, want) {
				return true
			}
		}
		return false
	}, nil
}

// operand is what a place is compared with: text, a number, true, false or null.
func operand(raw json.RawMessage) (gjson.Result, error) {
	want := gjson.ParseBytes(raw)
	if want.Type == gjson.JSON {
		return want, fmt.Errorf("unsupported type of value %.40s; lists and objects cannot be compared", raw)
	}
	return want, nil
}

// same takes what is missing for null.
func same(r, want gjson.Result) bool {
	return r.Type == want.Type && compare(r, want) == 0
}
