package dapr

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
)

const (
	bulkKeysMax = 10_000 // of one bulk get
	bodyTimeout = time.Minute
)

// state serves state/{store}[/...]. bulk and transaction cannot be read as keys, only written to, as in Dapr.
func (d *door) state(w http.ResponseWriter, r *http.Request, parts []string) {
	store, key := unescape(parts[0]), ""
	switch {
	case len(parts) == 2:
		key = unescape(parts[1])
	case len(parts) > 2:
		d.invoke(w, r) // no such path in Dapr
		return
	default:
		key = r.URL.Query().Get("key")
	}
	write := r.Method == http.MethodPost || r.Method == http.MethodPut
	op := map[bool]func(*stateAsk){true: (*stateAsk).save}[write && len(parts) == 1]
	switch {
	case op != nil:
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
	session, err := d.opt.Session(r)
	if err != nil {
		d.fail(w, r, "ERR_STATE_"+map[bool]string{true: "SAVE", false: "GET"}[write], err)
		return
	}
	if store != quipu.StoreDefault && store != quipu.StoreShared {
		noStore(w, store, session.Function())
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, d.opt.BodyBytesMax)
	// A body must not come a byte a minute. Not every writer has deadlines; those are of tests.
	conn := http.NewResponseController(w)
	_ = conn.SetReadDeadline(time.Now().Add(bodyTimeout))
	defer func() { _ = conn.SetReadDeadline(time.Time{}) }()
	op(&stateAsk{d: d, w: w, r: r, session: session, store: store, key: key})
}

// stateAsk is one state request.
type stateAsk struct {
	d          *door
	w          http.ResponseWriter
	r          *http.Request
	session    quipu.Session
	store, key string
}

func noStore(w http.ResponseWriter, store, appID string) {
	answerWith(w, http.StatusBadRequest, problem{ErrorCode: "ERR_STATE_STORE_NOT_FOUND", Message: fmt.Sprintf("state store %s is not found", store),
		Details: errorInfo("DAPR_STATE_NOT_FOUND", map[string]string{"appID": appID})})
}

// fits answers 400 for a key that Dapr would refuse too.
func (a *stateAsk) fits(key string) bool {
	why := ""
	switch {
	case strings.Contains(key, "||"):
		why = fmt.Sprintf("input key/keyPrefix '%s' can't contain '||'", key)
	case len(key) == 0 || len(key) > quipu.KeyBytesMax:
		why = fmt.Sprintf("a key must have 1 to %d bytes [%s]", quipu.KeyBytesMax, quipu.CodeKey)
	default:
		return true
	}
	answerWith(a.w, http.StatusBadRequest, problem{ErrorCode: "ERR_MALFORMED_REQUEST", Message: why, Details: errorInfo("DAPR_STATE_ILLEGAL_KEY", nil)})
	return false
}

func (a *stateAsk) get() {
	if !a.fits(a.key) {
		return
	}
	items, err := a.session.Get(a.r.Context(), a.store, a.key)
	if err != nil {
		a.d.failState(a, "ERR_STATE_GET", fmt.Sprintf("fail to get %s from state store %s: ", a.key, a.store), err)
		return
	}
	item := items[0]
	if !item.Exists() {
		a.w.WriteHeader(http.StatusNoContent)
		return
	}
	h := a.w.Header()
	h.Set("ETag", item.ETag)
	for name, value := range metadataOf(item) {
		h.Set("metadata."+name, value)
	}
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(item.Value)))
	_, _ = a.w.Write(item.Value) // a client that left has nobody to tell
}

func metadataOf(item quipu.Item) map[string]string {
	if item.Expires == 0 {
		return nil
	}
	return map[string]string{"ttlExpireTime": time.Unix(0, item.Expires).UTC().Format(time.RFC3339)}
}

// change is a key as a client writes it, in a save or a transaction.
type change struct {
	Key      string            `json:"key"`
	Value    json.RawMessage   `json:"value"`
	ETag     *string           `json:"etag"`
	Metadata map[string]string `json:"metadata"`
	Options  struct {
		Concurrency string `json:"concurrency"`
		Consistency string `json:"consistency"`
	} `json:"options"`
}

func (a *stateAsk) save() {
	var changes []change
	if err := json.NewDecoder(a.r.Body).Decode(&changes); err != nil {
		if !a.tooLarge(err) {
			answer(a.w, http.StatusBadRequest, "ERR_MALFORMED_REQUEST", "%v", err)
		}
		return
	}
	var out []quipu.Change
	for _, c := range changes {
		if c.Key == "" {
			answer(a.w, http.StatusBadRequest, "ERR_MALFORMED_REQUEST", `"key" is a required field`)
			return
		}
		if !a.fits(c.Key) {
			return
		}
		parsed, err := c.parse(a.queryMetadata(), false)
		if err != nil {
			a.failSave(err)
			return
		}
		out = append(out, parsed)
	}
	if err := a.apply(out); err != nil {
		a.failSave(err)
		return
	}
	a.w.WriteHeader(http.StatusNoContent)
}

func (a *stateAsk) failSave(err error) {
	a.d.failState(a, "ERR_STATE_SAVE", fmt.Sprintf("failed saving state in state store %s: ", a.store), err)
}

// apply is nothing for nothing, as in Dapr.
func (a *stateAsk) apply(changes []quipu.Change) error {
	if len(changes) == 0 {
		return nil
	}
	return a.session.Apply(a.r.Context(), a.store, changes)
}

// parse turns a client's change into ours. Metadata of the query wins over that of the body.
func (c change) parse(query map[string]string, remove bool) (quipu.Change, error) {
	out := quipu.Change{Key: c.Key, Delete: remove}
	if c.ETag != nil {
		out.ETag = *c.ETag
	}
	switch c.Options.Concurrency {
	case "", "unspecified":
	case "first-write":
		out.FirstWrite = true
	case "last-write":
		out.ETag = ""
	default:
		return out, &quipu.Error{Code: quipu.CodeUsage, Text: fmt.Sprintf("unrecognized concurrency type '%.40s'", c.Options.Concurrency)}
	}
	switch c.Options.Consistency {
	case "", "unspecified", "strong", "eventual": // ours is always strong
	default:
		return out, &quipu.Error{Code: quipu.CodeUsage, Text: fmt.Sprintf("unrecognized consistency type '%.40s'", c.Options.Consistency)}
	}
	if remove {
		return out, nil
	}
	out.Value = c.Value
	if out.Value == nil {
		out.Value = []byte("null")
	}
	ttl, ok := query["ttlInSeconds"]
	if !ok {
		ttl = c.Metadata["ttlInSeconds"]
	}
	var err error
	out.TTL, err = parseTTL(ttl)
	return out, err
}

// parseTTL reads seconds; none and -1 mean for ever.
func parseTTL(text string) (time.Duration, error) {
	if text == "" || text == "-1" {
		return 0, nil
	}
	seconds, err := strconv.ParseInt(text, 10, 32)
	if err != nil || seconds < 1 {
		return 0, &quipu.Error{Code: quipu.CodeTTL, Text: fmt.Sprintf("incorrect value for metadata 'ttlInSeconds': %.40q", text)}
	}
	return time.Duration(seconds) * time.Second, nil
}

// queryMetadata is what the query says with names like metadata.ttlInSeconds.
func (a *stateAsk) queryMetadata() map[string]string {
	out := map[string]string{}
	for name, values := range a.r.URL.Query() {
		if name, ok := strings.CutPrefix(name, "metadata."); ok && len(values) > 0 {
			out[name] = values[0]
		}
	}
	return out
}

func (a *stateAsk) remove() {
	if !a.fits(a.key) {
		return
	}
	c := change{Key: a.key}
	if etag := a.r.Header.Get("If-Match"); etag != "" {
		c.ETag = &etag
	}
	query := a.r.URL.Query()
	c.Options.Concurrency, c.Options.Consistency = query.Get("concurrency"), query.Get("consistency")
	parsed, err := c.parse(nil, true)
	// To delete what is not there is no conflict in Dapr, whatever the concurrency.
	parsed.FirstWrite = false
	if err == nil {
		err = a.apply([]quipu.Change{parsed})
	}
	if err != nil {
		a.d.failState(a, "ERR_STATE_DELETE", fmt.Sprintf("failed deleting state with key %s: ", a.key), err)
		return
	}
	a.w.WriteHeader(http.StatusNoContent)
}

type bulkItem struct {
	Key      string            `json:"key"`
	Data     json.RawMessage   `json:"data,omitempty"`
	ETag     *string           `json:"etag,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Error    string            `json:"error,omitempty"`
}

// bulkGet answers all keys from one snapshot, so parallelism has nothing to do.
func (a *stateAsk) bulkGet() {
	var ask struct {
		Keys        []string          `json:"keys"`
		Parallelism int               `json:"parallelism"`
		Metadata    map[string]string `json:"metadata"`
	}
	if err := json.NewDecoder(a.r.Body).Decode(&ask); err != nil {
		if !a.tooLarge(err) {
			malformed(a.w, err)
		}
		return
	}
	if len(ask.Keys) > bulkKeysMax {
		answer(a.w, http.StatusBadRequest, "ERR_STATE_BULK_GET", "there are %d keys; the most is %d", len(ask.Keys), bulkKeysMax)
		return
	}
	for _, key := range ask.Keys {
		if !a.fits(key) {
			return
		}
	}
	out := make([]bulkItem, 0, len(ask.Keys))
	if len(ask.Keys) > 0 {
		items, err := a.session.Get(a.r.Context(), a.store, ask.Keys...)
		if err != nil {
			a.d.failState(a, "ERR_STATE_BULK_GET", "", err)
			return
		}
		for _, item := range items {
			out = append(out, bulkOf(item))
		}
	}
	answerWith(a.w, http.StatusOK, out)
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

func (a *stateAsk) transaction() {
	var ask struct {
		Operations []struct {
			Operation string `json:"operation"`
			Request   change `json:"request"`
		} `json:"operations"`
		Metadata map[string]string `json:"metadata"`
	}
	if err := json.NewDecoder(a.r.Body).Decode(&ask); err != nil {
		if !a.tooLarge(err) {
			malformed(a.w, err)
		}
		return
	}
	if len(ask.Operations) > quipu.TxOpsMax {
		answer(a.w, http.StatusBadRequest, "ERR_STATE_STORE_TOO_MANY_TRANSACTIONS",
			"the transaction contains %d operations, which is more than what the state store supports: %d", len(ask.Operations), quipu.TxOpsMax)
		return
	}
	var out []quipu.Change
	for _, o := range ask.Operations {
		if o.Operation != "upsert" && o.Operation != "delete" {
			answer(a.w, http.StatusBadRequest, "ERR_NOT_SUPPORTED_STATE_OPERATION", "operation type %.40s not supported", o.Operation)
			return
		}
		if !a.fits(o.Request.Key) {
			return
		}
		c, err := o.Request.parse(a.queryMetadata(), o.Operation == "delete")
		if c.Delete {
			c.FirstWrite = false
		}
		if err != nil {
			a.failTransaction(err)
			return
		}
		out = append(out, c)
	}
	if err := a.apply(out); err != nil {
		a.failTransaction(err)
		return
	}
	a.w.WriteHeader(http.StatusNoContent)
}

// failTransaction keeps Dapr's 500 for a wrong etag, which clients of transactions know.
func (a *stateAsk) failTransaction(err error) {
	const prefix = "error while executing state transaction: "
	if code := quipu.CodeOf(err); code == quipu.CodeETag || code == quipu.CodeETagForm {
		answer(a.w, http.StatusInternalServerError, "ERR_STATE_TRANSACTION", "%s%s", prefix, etagText(err))
		return
	}
	a.d.failState(a, "ERR_STATE_TRANSACTION", prefix, err)
}

// etagText is what Dapr says of etags; "" if the error is of something else.
func etagText(err error) string {
	e := quipu.AsError(err)
	switch e.Code {
	case quipu.CodeETag:
		return "possible etag mismatch. error from state store: " + e.Text
	case quipu.CodeETagForm:
		return "invalid etag value: " + e.Text
	}
	return ""
}

// failState answers with Dapr's code and prefix; statuses of etags are Dapr's as well as ours.
func (d *door) failState(a *stateAsk, code, prefix string, err error) {
	if message := etagText(err); message != "" {
		answer(a.w, quipu.Codes[quipu.CodeOf(err)].Status, code, "%s%s", prefix, message)
		return
	}
	d.failPrefix(a.w, a.r, code, prefix, err)
}

// tooLarge answers 413 if that is what the error says.
func (a *stateAsk) tooLarge(err error) bool {
	var over *http.MaxBytesError
	if !errors.As(err, &over) {
		return false
	}
	answer(a.w, http.StatusRequestEntityTooLarge, "ERR_BODY_READ", "failed to read request body: it has more than %d bytes", over.Limit)
	return true
}
