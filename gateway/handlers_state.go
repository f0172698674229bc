package gateway

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

func (a *ask) state() quipu.State { return a.ns.State(a.query.Get("as")) }

// store checks that statestore comes with the function whose keys are meant.
func (a *ask) store() (string, error) {
	store := a.values["store"]
	if store == quipu.StoreDefault && a.query.Get("as") == "" {
		return "", &quipu.Error{Code: quipu.CodeUsage, Text: "keys of statestore belong to a function, and the query names none",
			Hint: "add as=FUNCTION (quipu state --as FUNCTION), or use the store shared"}
	}
	return store, nil
}

func listState(a *ask) error {
	store, err := a.store()
	if err != nil {
		return err
	}
	limit, err := a.integer("limit", listLimitMax, listLimitMax)
	if err != nil {
		return err
	}
	found, err := a.state().List(a.Context(), store, quipu.ListRequest{Prefix: a.query.Get("prefix"), After: a.query.Get("after"), Limit: limit})
	if err != nil {
		return err
	}
	out := sdk.Page[sdk.Item]{Items: make([]sdk.Item, 0, len(found.Items)), Next: found.Next}
	for _, item := range found.Items {
		out.Items = append(out.Items, sdk.Item{Key: item.Key, ETag: item.ETag, Size: len(item.Value), Expires: expiry(item)})
	}
	return a.reply(out)
}

func expiry(item quipu.Item) time.Time {
	if item.Expires == 0 {
		return time.Time{}
	}
	return time.Unix(0, item.Expires).UTC()
}

func getState(a *ask) error {
	store, err := a.store()
	if err != nil {
		return err
	}
	items, err := a.state().Get(a.Context(), store, a.values["key"])
	if err != nil {
		return err
	}
	item := items[0]
	if !item.Exists() {
		return &quipu.Error{Code: quipu.CodeNotFound, Text: "the store " + quote(store) + " has no key " + quote(item.Key)}
	}
	h := a.Header()
	h.Set("Content-Type", bytesType)
	h.Set("Content-Length", strconv.Itoa(len(item.Value)))
	h.Set("ETag", `"`+item.ETag+`"`)
	h.Set("X-Content-Type-Options", "nosniff")
	if item.Expires != 0 {
		h.Set(sdk.HeaderExpires, expiry(item).Format(time.RFC3339Nano))
	}
	_, _ = a.Write(item.Value) // a client that left has nobody to tell
	return nil
}

func putState(a *ask) error {
	change := quipu.Change{Key: a.values["key"], ETag: etagOf(a.Request)}
	if text := a.query.Get("ttl"); text != "" {
		seconds, err := strconv.ParseInt(text, 10, 32)
		if err != nil || seconds < 1 {
			return &quipu.Error{Code: quipu.CodeTTL, Text: "ttl is " + quote(text) + "; it must be a number of seconds"}
		}
		change.TTL = time.Duration(seconds) * time.Second
	}
	switch none := a.Request.Header.Get("If-None-Match"); none {
	case "":
	case "*":
		change.FirstWrite = true
	default:
		return usage("If-None-Match is %s; only * can be asked for", quote(none))
	}
	value, err := a.readBody()
	if err != nil {
		return err
	}
	change.Value = value
	return a.apply(change)
}

func deleteState(a *ask) error {
	return a.apply(quipu.Change{Key: a.values["key"], Delete: true, ETag: etagOf(a.Request)})
}

func (a *ask) apply(change quipu.Change) error {
	store, err := a.store()
	if err != nil {
		return err
	}
	if err := a.state().Apply(a.Context(), store, []quipu.Change{change}); err != nil {
		return err
	}
	a.WriteHeader(http.StatusNoContent)
	return nil
}

// etagOf takes an etag with or without its quotes.
func etagOf(r *http.Request) string { return strings.Trim(r.Header.Get("If-Match"), `"`) }
