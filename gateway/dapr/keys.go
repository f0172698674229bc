package dapr

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/quipu-run/quipu"
)

// Limits of what one request of ours lists and deletes.
const (
	listKeysMax   = 1000
	deleteKeysMax = 100_000
)

// stateAlpha serves v1.0-alpha1/state/{store}/query, which is Dapr's, and /keys, which is ours.
func (d *Door) stateAlpha(w http.ResponseWriter, r *http.Request, name, what string) {
	op, tag := (*stateAsk).query, "ERR_STATE_QUERY"
	switch {
	case what == "query":
		if !allow(w, r, http.MethodPost, http.MethodPut) {
			return
		}
	case r.Method == http.MethodGet:
		op, tag = (*stateAsk).listKeys, "ERR_STATE_GET"
	case r.Method == http.MethodDelete:
		op, tag = (*stateAsk).deleteKeys, "ERR_STATE_BULK_DELETE"
	default:
		allow(w, r, http.MethodGet, http.MethodDelete)
		return
	}
	s, err := d.open(r, name, tag)
	if err == nil {
		defer d.bound(w, r)()
		err = op(&stateAsk{stateStore: s, w: w})
	}
	if err != nil {
		d.fail(w, r, tag, err)
	}
}

// listKeys is GET keys?prefix=&like=&after=&limit=&values=: keys in the order of their bytes. With a pattern, a page has those of its
// keys that match, which may be none.
func (a *stateAsk) listKeys() error {
	ask := a.r.URL.Query()
	limit, err := numberOf("limit", ask.Get("limit"), listKeysMax)
	if err != nil {
		return err
	}
	values, err := flagOf("values", ask.Get("values"))
	if err != nil {
		return err
	}
	prefix, like := ask.Get("prefix"), (*regexp.Regexp)(nil)
	if pattern := ask.Get("like"); pattern != "" {
		if prefix != "" {
			return badParameter("prefix and like cannot be had together")
		}
		if prefix, like, err = likeOf(pattern); err != nil {
			return err
		}
	}
	page, err := a.state.List(a.r.Context(), a.store, quipu.ListRequest{Prefix: prefix, After: ask.Get("after"), Limit: limit})
	if err != nil {
		return a.problem("ERR_STATE_GET", fmt.Sprintf("fail to list keys of state store %s: ", a.name), err)
	}
	if like != nil {
		page.Items = slices.DeleteFunc(page.Items, func(i quipu.Item) bool { return !like.MatchString(i.Key) })
	}
	out := map[string]any{}
	if page.Next != "" {
		out["next"] = page.Next
	}
	if values {
		out["items"] = bulkOfAll(page.Items)
	} else {
		out["keys"] = keysOf(page.Items)
	}
	answerWith(a.w, http.StatusOK, out)
	return nil
}

// likeOf reads a pattern of SQL's LIKE: % is any text, _ any one character, and a backslash takes the meaning of the next. It answers
// what all that match begin with.
func likeOf(pattern string) (prefix string, like *regexp.Regexp, err error) {
	var text strings.Builder
	literal, escaped := true, false
	for _, c := range pattern {
		switch {
		case !escaped && c == '\\':
			escaped = true
			continue
		case !escaped && c == '%':
			text.WriteString(".*")
			literal = false
		case !escaped && c == '_':
			text.WriteString(".")
			literal = false
		default:
			text.WriteString(regexp.QuoteMeta(string(c)))
			if literal {
				prefix += string(c)
			}
		}
		escaped = false
	}
	if escaped || len(pattern) > quipu.KeyBytesMax {
		return "", nil, badParameter("like is no pattern: %% is any text, _ any one character, and a backslash takes the meaning of the next")
	}
	if like, err = regexp.Compile("(?s)^" + text.String() + "$"); err != nil {
		return "", nil, badParameter("like cannot be used: %v", err)
	}
	return prefix, like, nil
}

func keysOf(items []quipu.Item) []string {
	out := make([]string, 0, len(items))
	for _, item := range items {
		out = append(out, item.Key)
	}
	return out
}

// deleteKeys is DELETE keys?prefix=: it deletes in steps, each whole, up to deleteKeysMax keys; more tells that there may be others. A
// request without any prefix is refused: an empty one, which means all keys, must be written.
func (a *stateAsk) deleteKeys() error {
	if !a.r.URL.Query().Has("prefix") {
		return badParameter("prefix is missing; an empty one means all keys")
	}
	ask, deleted := quipu.ListRequest{Prefix: a.r.URL.Query().Get("prefix"), Limit: listKeysMax}, 0
	for more := true; more; {
		page, err := a.state.List(a.r.Context(), a.store, ask)
		if err == nil && len(page.Items) > 0 {
			err = a.state.Apply(a.r.Context(), a.store, deletions(page.Items))
		}
		if err != nil {
			return a.problem("ERR_STATE_BULK_DELETE", fmt.Sprintf("failed deleting state in state store %s after %d keys: ", a.name, deleted), err)
		}
		deleted += len(page.Items)
		ask.After, more = page.Next, page.Next != ""
		if more && deleted >= deleteKeysMax {
			answerWith(a.w, http.StatusOK, map[string]any{"deleted": deleted, "more": true})
			return nil
		}
	}
	answerWith(a.w, http.StatusOK, map[string]any{"deleted": deleted})
	return nil
}

func deletions(items []quipu.Item) []quipu.Change {
	out := make([]quipu.Change, 0, len(items))
	for _, item := range items {
		out = append(out, quipu.Change{Key: item.Key, Delete: true})
	}
	return out
}

// query is POST query.
func (a *stateAsk) query() error {
	var body json.RawMessage
	if err := json.NewDecoder(a.r.Body).Decode(&body); err != nil {
		return a.queryProblem(fmt.Errorf("failed to parse JSON query body: %w", err))
	}
	found, err := a.stateStore.query(body)
	if err != nil {
		return err
	}
	if len(found.items) == 0 { // Dapr says so
		a.w.WriteHeader(http.StatusNoContent)
		return nil
	}
	answerWith(a.w, http.StatusOK, struct {
		Results []bulkItem `json:"results"`
		Token   string     `json:"token,omitempty"`
	}{bulkOfAll(found.items), found.token})
	return nil
}

func badParameter(format string, args ...any) error {
	return &problem{status: http.StatusBadRequest, tag: "ERR_BAD_REQUEST", message: "invalid request: " + fmt.Sprintf(format, args...)}
}

// numberOf is a parameter from 1 to a most, which is also what it is if it is not given.
func numberOf(name, text string, most int) (int, error) {
	if text == "" {
		return most, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, badParameter("%s must be a number from 1 to %d: actual is '%.40s'", name, most, text)
	}
	return n, nil
}

func flagOf(name, text string) (bool, error) {
	if text == "" {
		return false, nil
	}
	flag, err := strconv.ParseBool(text)
	if err != nil {
		return false, badParameter("%s must be true or false: actual is '%.40s'", name, text)
	}
	return flag, nil
}
