package dapr

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
)

const bodyTimeout = time.Minute

// state serves state/{store}[/...]. bulk and transaction cannot be read as keys, only written to, as in Dapr.
func (d *Door) state(w http.ResponseWriter, r *http.Request, parts []string) {
	name, key := unescape(parts[0]), ""
	switch {
	case len(parts) == 2:
		key = unescape(parts[1])
	case len(parts) > 2:
		d.invoke(w, r) // no such path in Dapr
		return
	case r.URL.RawQuery != "":
		key = r.URL.Query().Get("key")
	}
	write, tag := r.Method == http.MethodPost || r.Method == http.MethodPut, "ERR_STATE_GET"
	if write {
		tag = "ERR_STATE_SAVE"
	}
	var op func(*stateAsk) error
	switch {
	case write && len(parts) == 1:
		op = (*stateAsk).save
	case write && key == "bulk":
		op = (*stateAsk).bulkGet
	case write && key == "transaction":
		op = (*stateAsk).transaction
	case r.Method == http.MethodGet && key != "":
		op = (*stateAsk).get
	case r.Method == http.MethodDelete && key != "":
		op = (*stateAsk).remove
	case len(parts) == 1:
		allow(w, r, http.MethodPost, http.MethodPut)
		return
	default:
		allow(w, r, http.MethodGet, http.MethodDelete)
		return
	}
	s, err := d.open(r, name, tag)
	if err == nil {
		d.limit(w, r)
		err = op(&stateAsk{stateStore: s, w: w, key: key})
	}
	if err != nil {
		d.fail(w, r, tag, err)
	}
}

// limit bounds the body of a request in size and time: it must not come a byte a minute. The time is the handler's, too: after
// it, net/http sets the time for the next request.
func (d *Door) limit(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, d.opt.BodyBytesMax)
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout)) // not every writer has deadlines; those are of tests
}

// bound is limit for a handler that goes on for longer: call what it answers when the body was read.
func (d *Door) bound(w http.ResponseWriter, r *http.Request) (done func()) {
	d.limit(w, r)
	return func() { _ = http.NewResponseController(w).SetReadDeadline(time.Time{}) }
}

// stateAsk is one state request over HTTP.
type stateAsk struct {
	*stateStore
	w   http.ResponseWriter
	key string
}

// done answers 204 unless there is an error, which it passes on.
func (a *stateAsk) done(err error) error {
	if err == nil {
		a.w.WriteHeader(http.StatusNoContent)
	}
	return err
}

func (a *stateAsk) get() error {
	item, err := a.getOne(a.key)
	if err != nil || !item.Exists() {
		return a.done(err)
	}
	h := a.w.Header()
	h.Set("Etag", item.ETag) // as net/http keeps it
	for name, value := range metadataOf(item) {
		h.Set("metadata."+name, value)
	}
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(item.Value)))
	_, _ = a.w.Write(item.Value) // a client that left has nobody to tell
	return nil
}

func (a *stateAsk) save() error {
	var changes []change
	if err := json.NewDecoder(a.r.Body).Decode(&changes); err != nil {
		return malformed(err)
	}
	return a.done(a.stateStore.save(changes, queryMetadata(a.r)))
}

// queryMetadata is what the query says with names like metadata.ttlInSeconds. It is to be read alone.
func queryMetadata(r *http.Request) map[string]string {
	if r.URL.RawQuery == "" {
		return nil
	}
	out := map[string]string{}
	for name, values := range r.URL.Query() {
		if name, ok := strings.CutPrefix(name, "metadata."); ok && len(values) > 0 {
			out[name] = values[0]
		}
	}
	return out
}

func (a *stateAsk) remove() error {
	c := change{Key: a.key}
	if etag := a.r.Header.Get("If-Match"); etag != "" {
		c.ETag = &etag
	}
	query := a.r.URL.Query()
	c.Options.Concurrency, c.Options.Consistency = query.Get("concurrency"), query.Get("consistency")
	return a.done(a.removeOne(c))
}

type bulkItem struct {
	Key      string            `json:"key"`
	Data     json.RawMessage   `json:"data,omitempty"`
	ETag     *string           `json:"etag,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Error    string            `json:"error,omitempty"`
}

// bulkGet answers all keys from one snapshot, so parallelism has nothing to do.
func (a *stateAsk) bulkGet() error {
	var ask struct {
		Keys        []string          `json:"keys"`
		Parallelism int               `json:"parallelism"`
		Metadata    map[string]string `json:"metadata"`
	}
	if err := json.NewDecoder(a.r.Body).Decode(&ask); err != nil {
		return malformed(err)
	}
	items, err := a.stateStore.get("ERR_STATE_BULK_GET", "", ask.Keys...)
	if err != nil {
		return err
	}
	answerWith(a.w, http.StatusOK, bulkOfAll(items))
	return nil
}

func bulkOfAll(items []quipu.Item) []bulkItem {
	out := make([]bulkItem, 0, len(items))
	for _, item := range items {
		out = append(out, bulkOf(item))
	}
	return out
}

func bulkOf(item quipu.Item) bulkItem {
	b := bulkItem{Key: item.Key, Metadata: metadataOf(item)}
	switch {
	case !item.Exists():
	case !json.Valid(item.Value): // written by other means than this API
		b.Error = "the value is not JSON; get it alone"
	default:
		b.Data, b.ETag = item.Value, &item.ETag
	}
	return b
}

func (a *stateAsk) transaction() error {
	var ask struct {
		Operations []operation       `json:"operations"`
		Metadata   map[string]string `json:"metadata"`
	}
	if err := json.NewDecoder(a.r.Body).Decode(&ask); err != nil {
		return malformed(err)
	}
	return a.done(a.transact(ask.Operations, queryMetadata(a.r)))
}
