package dapr

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/statequery"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
)

// Limits of one query: it reads the store from its start, as there are no indexes.
const (
	queryScanMax  = 100_000 // items
	querySlackMax = 1000    // found items of other pages that are kept until they are sorted out
)

// found is what a query found.
type found struct {
	items []quipu.Item
	token string // of the next page, "" if there is none
}

// query reads the store page by page: outside of an atomic call, what is written meanwhile may be found or not.
func (s *stateStore) query(body []byte) (found, error) {
	if err := s.has("QUERY_API", "DAPR_STATE_QUERYING_NOT_SUPPORTED", "state store does not support querying", codes.Internal); err != nil {
		return found{}, err
	}
	q, err := statequery.Parse(body)
	if err != nil {
		return found{}, s.queryProblem(err)
	}
	c := collector{q: q, most: s.d.opt.BodyBytesMax}
	ask, scanned := quipu.ListRequest{Limit: listKeysMax}, 0
	for {
		page, err := s.state.List(s.r.Context(), s.store, ask)
		if err != nil {
			return found{}, s.problem("ERR_STATE_QUERY", fmt.Sprintf("state store %s query failed: ", s.name), err)
		}
		if scanned += len(page.Items); scanned > queryScanMax {
			return found{}, s.queryProblem(fmt.Errorf("the store has more than %d keys, which is the most that a query reads", queryScanMax))
		}
		if err := c.take(page.Items); err != nil {
			return found{}, s.queryProblem(err)
		}
		if ask.After = page.Next; page.Next == "" || c.enough() {
			return c.page(), nil
		}
	}
}

// queryProblem is Dapr's word for whatever is wrong with a query. Dapr says 500.
func (s *stateStore) queryProblem(err error) *problem {
	return &problem{status: http.StatusBadRequest, tag: "ERR_STATE_QUERY", reason: "DAPR_STATE_QUERY_FAILED",
		message:  fmt.Sprintf("state store %s query failed: %v", s.name, err),
		resource: &errdetails.ResourceInfo{ResourceType: "state", ResourceName: s.name}}
}

// collector keeps what one page needs: what was found so far, in the order of the query, cut behind the page.
type collector struct {
	q     *statequery.Query
	most  int64 // bytes of values
	bytes int64
	all   []candidate
}

type candidate struct {
	quipu.Item
	key statequery.Key
}

func (c *collector) take(items []quipu.Item) error {
	for _, item := range items {
		if c.enough() {
			return nil
		}
		if !c.q.Match(item.Value) {
			continue
		}
		c.all = append(c.all, candidate{item, c.q.Key(item.Value)})
		c.bytes += int64(len(item.Value))
		if c.q.Sorted() && c.q.Limit > 0 && (len(c.all) >= 2*c.end()+querySlackMax || c.bytes > c.most) {
			c.cut()
		}
		if c.bytes > c.most {
			return fmt.Errorf("what it found has more than %d bytes; ask for fewer with page.limit", c.most)
		}
	}
	return nil
}

// end is where the page ends; one more item tells that there is another page.
func (c *collector) end() int { return c.q.Skip + c.q.Limit }

// cut sorts, and leaves out what is behind the page.
func (c *collector) cut() {
	slices.SortStableFunc(c.all, func(a, b candidate) int { return c.q.Compare(a.key, b.key) })
	if c.q.Limit > 0 && len(c.all) > c.end()+1 {
		clear(c.all[c.end()+1:])
		c.all = c.all[:c.end()+1]
	}
	c.bytes = 0
	for _, one := range c.all {
		c.bytes += int64(len(one.Value))
	}
}

// enough tells whether nothing that comes now can be on the page.
func (c *collector) enough() bool {
	return !c.q.Sorted() && c.q.Limit > 0 && len(c.all) > c.end()
}

func (c *collector) page() found {
	c.cut()
	var out found
	for i, one := range c.all {
		if i < c.q.Skip {
			continue
		}
		if c.q.Limit > 0 && i >= c.end() {
			out.token = statequery.Token(i)
			break
		}
		out.items = append(out.items, one.Item)
	}
	return out
}
