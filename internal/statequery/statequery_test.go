package statequery

import (
	"fmt"
	"strings"
	"testing"
)

func TestAFilterLooksAtOnePlaceOfAValue(t *testing.T) {
	const value = `{"a":{"b":[10,{"c":"x"}]},"n":9007199254740993,"t":true,"z":null,"s":"m","we.ird":1,"@this":2}`
	for filter, want := range map[string]bool{
		`{"EQ":{"a.b.0":10}}`:                           true,
		`{"EQ":{"a.b.1.c":"x"}}`:                        true,
		`{"EQ":{"a.b.9":null}}`:                         true,
		`{"EQ":{"n":9007199254740993}}`:                 true,
		`{"EQ":{"n":9007199254740992}}`:                 false,
		`{"EQ":{"t":true}}`:                             true,
		`{"EQ":{"t":"true"}}`:                           false,
		`{"EQ":{"z":null}}`:                             true,
		`{"EQ":{"missing":null}}`:                       true,
		`{"NEQ":{"missing":1}}`:                         true,
		`{"NEQ":{"s":"m"}}`:                             false,
		`{"GT":{"s":"l"}}`:                              true,
		`{"GTE":{"s":"m"}}`:                             true,
		`{"LT":{"s":"m"}}`:                              false,
		`{"LTE":{"a.b.0":10.0}}`:                        true,
		`{"LT":{"a.b.0":"99"}}`:                         false,
		`{"GT":{"missing":-1}}`:                         false,
		`{"IN":{"s":["a","m"]}}`:                        true,
		`{"IN":{"s":[]}}`:                               false,
		`{"EQ":{"@this":2}}`:                            true,
		`{"EQ":{"a.#":2}}`:                              false,
		`{"AND":[{"EQ":{"s":"m"}},{"EQ":{"t":true}}]}`:  true,
		`{"AND":[{"EQ":{"s":"m"}},{"EQ":{"t":false}}]}`: false,
		`{"OR":[{"EQ":{"s":"x"}},{"EQ":{"t":true}}]}`:   true,
		`{"OR":[{"EQ":{"s":"x"}},{"NEQ":{"t":true}}]}`:  false,
		`{}`:   true,
		`null`: true,
	} {
		q, err := Parse([]byte(`{"filter":` + filter + `}`))
		if err != nil {
			t.Errorf("%s: %v", filter, err)
		} else if got := q.Match([]byte(value)); got != want {
			t.Errorf("%s: %v", filter, got)
		}
	}
	q, err := Parse([]byte(`{"filter":{"EQ":{"a":1}}}`))
	if err != nil || q.Match([]byte(`{"a":1`)) || q.Match(nil) {
		t.Errorf("what is no JSON has nothing in it: %v", err)
	}
}

func TestAQueryThatCannotBeOneIsRefused(t *testing.T) {
	deep := strings.Repeat(`{"AND":[{"EQ":{"a":1}},`, depthMax) + `{"EQ":{"a":1}}` + strings.Repeat("]}", depthMax)
	many := `{"IN":{"a":[` + strings.TrimSuffix(strings.Repeat("1,", filtersMax), ",") + `]}}`
	for query, says := range map[string]string{
		``:                                    "failed to parse JSON query body",
		`[]`:                                  "failed to parse JSON query body",
		`{"filter":[]}`:                       "filter unit must be a map",
		`{"filter":{"EQ":{"a":1},"IN":{}}}`:   "single element",
		`{"filter":{"LIKE":{"a":1}}}`:         "unsupported filter",
		`{"filter":{"EQ":[]}}`:                "EQ filter must be a map",
		`{"filter":{"EQ":{}}}`:                "single key/value pair",
		`{"filter":{"EQ":{"":1}}}`:            "is no path",
		`{"filter":{"EQ":{"a..b":1}}}`:        "is no path",
		`{"filter":{"EQ":{"a":{}}}}`:          "cannot be compared",
		`{"filter":{"GT":{"a":true}}}`:        "unsupported type of value",
		`{"filter":{"IN":{"a":1}}}`:           "IN filter value must be an array",
		`{"filter":{"IN":{"a":[[]]}}}`:        "cannot be compared",
		`{"filter":{"AND":1}}`:                "AND filter must be an array",
		`{"filter":{"OR":[{"EQ":{"a":1}}]}}`:  "at least two entries",
		`{"filter":{"OR":[1,2]}}`:             "filter unit must be a map",
		`{"filter":` + deep + `}`:             "in one another",
		`{"filter":` + many + `}`:             "1000 filters",
		`{"sort":[{"key":""}]}`:               "is no path",
		`{"sort":[{"key":"a","order":"up"}]}`: "ASC or DESC",
		`{"page":{"limit":-1}}`:               "page limit",
		`{"page":{"token":"x"}}`:              "page token",
		`{"page":{"token":"-1"}}`:             "page token",
		`{"sort":[` + strings.TrimSuffix(strings.Repeat(`{"key":"a"},`, 17), ",") + `]}`: "the most is 16",
	} {
		if _, err := Parse([]byte(query)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.80s: %v, want %s", query, err, says)
		}
	}
}

func TestWhatIsMissingComesFirst(t *testing.T) {
	q, err := Parse([]byte(`{"sort":[{"key":"a"},{"key":"b","order":"desc"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	ordered := []string{`x`, `{"a":false}`, `{"a":true}`, `{"a":2}`, `{"a":10,"b":"z"}`, `{"a":10,"b":"a"}`, `{"a":"10"}`, `{"a":"2"}`, `{"a":{}}`}
	for i := range len(ordered) - 1 {
		a, b := q.Key([]byte(ordered[i])), q.Key([]byte(ordered[i+1]))
		if q.Compare(a, b) >= 0 || q.Compare(b, a) <= 0 || q.Compare(a, a) != 0 {
			t.Errorf("%s does not come before %s", ordered[i], ordered[i+1])
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{"filter":{"OR":[{"EQ":{"a.b":1}},{"IN":{"c":["x"]}}]},"sort":[{"key":"a"}]}`, `{"a":{"b":1}}`)
	f.Fuzz(func(t *testing.T, query, value string) {
		q, err := Parse([]byte(query))
		if err != nil {
			return
		}
		if key := q.Key([]byte(value)); q.Compare(key, key) != 0 {
			t.Errorf("%s is not itself by %s", value, query)
		}
		_ = fmt.Sprint(q.Match([]byte(value)))
	})
}
