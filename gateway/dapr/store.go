package dapr

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/component"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
)

const bulkKeysMax = 10_000 // of one bulk request

// stateStore is one use of a state store, whatever protocol asks for it. Its errors are problems.
type stateStore struct {
	d       *Door
	r       *http.Request
	session quipu.Session
	name    string // of the component
	state   quipu.State
	store   string // of state
	foreign bool   // not on the log
	// features of a store that is not on the log and tells them; nil means all.
	features []string
	outbox   *component.Outbox
	set      *component.Set
}

// open finds the store that a request names.
func (d *Door) open(r *http.Request, name, tag string) (*stateStore, error) {
	session, err := d.opt.Session(r)
	if err != nil {
		return nil, d.problem(r, tag, "", err)
	}
	set, err := d.set(r)
	if err != nil {
		return nil, d.problem(r, tag, "", err)
	}
	c, ok := component.Of[component.State](set, name)
	if !ok {
		return nil, noState(set, name, session.Function())
	}
	s := &stateStore{d: d, r: r, session: session, name: name, state: session, store: c.Store, outbox: c.Outbox, set: set}
	if c.Foreign != nil {
		s.state, s.foreign = c.Foreign, true
		if teller, ok := c.Foreign.(interface{ Features() []string }); ok {
			s.features = teller.Features()
		}
	}
	s.state = component.GuardedState(s.state, c.Guard)
	return s, nil
}

// noState tells a name that is wrong from there being no state store at all.
func noState(set *component.Set, name, app string) error {
	p := &problem{status: http.StatusBadRequest, tag: "ERR_STATE_STORE_NOT_FOUND", message: fmt.Sprintf("state store %s is not found", name),
		reason: "DAPR_STATE_NOT_FOUND", metadata: map[string]string{"appID": app}}
	if !component.Any[component.State](set) {
		p.status, p.code, p.tag, p.reason = http.StatusInternalServerError, codes.FailedPrecondition, "ERR_STATE_STORE_NOT_CONFIGURED", "DAPR_STATE_NOT_CONFIGURED"
		p.message = fmt.Sprintf("state store %s is not configured", name)
	}
	return p
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
	remove bool
}

// operation is one of a transaction.
type operation struct {
	Operation string `json:"operation"`
	Request   change `json:"request"`
}

// fits refuses a key that Dapr would refuse too.
func fits(key string) error {
	why := ""
	switch {
	case strings.Contains(key, "||"):
		why = fmt.Sprintf("input key/keyPrefix '%s' can't contain '||'", key)
	case len(key) == 0 || len(key) > quipu.KeyBytesMax:
		why = fmt.Sprintf("a key must have 1 to %d bytes [%s]", quipu.KeyBytesMax, quipu.CodeKey)
	default:
		return nil
	}
	return &problem{status: http.StatusBadRequest, tag: "ERR_MALFORMED_REQUEST", message: why, reason: "DAPR_STATE_ILLEGAL_KEY"}
}

// get reads keys from one snapshot; one key unless tag is of a bulk get.
func (s *stateStore) get(tag, prefix string, keys ...string) ([]quipu.Item, error) {
	if len(keys) > bulkKeysMax {
		return nil, &problem{status: http.StatusBadRequest, tag: tag, message: fmt.Sprintf("there are %d keys; the most is %d", len(keys), bulkKeysMax)}
	}
	for _, key := range keys {
		if err := fits(key); err != nil {
			return nil, err
		}
	}
	if len(keys) == 0 {
		return nil, nil
	}
	items, err := s.state.Get(s.r.Context(), s.store, keys...)
	if err != nil {
		return nil, s.problem(tag, prefix, err)
	}
	return items, nil
}

func (s *stateStore) getOne(key string) (quipu.Item, error) {
	if err := fits(key); err != nil {
		return quipu.Item{}, err
	}
	items, err := s.state.Get(s.r.Context(), s.store, key)
	if err != nil {
		return quipu.Item{}, s.problem("ERR_STATE_GET", fmt.Sprintf("fail to get %s from state store %s: ", key, s.name), err)
	}
	return items[0], nil
}

// save writes or deletes keys: all or none. Metadata of the query wins over that of a change.
func (s *stateStore) save(changes []change, query map[string]string) error {
	prefix := "failed saving state in state store " + s.name + ": "
	out := make([]quipu.Change, 0, len(changes))
	for i := range changes {
		parsed, err := changes[i].parse(query)
		if err != nil {
			return s.problem("ERR_STATE_SAVE", prefix, err)
		}
		out = append(out, parsed)
	}
	return s.apply("ERR_STATE_SAVE", prefix, out)
}

// removeAll is Dapr's bulk delete, which says less than a delete of one key.
func (s *stateStore) removeAll(tag, prefix string, changes ...change) error {
	out := make([]quipu.Change, 0, len(changes))
	for _, c := range changes {
		c.remove = true
		parsed, err := c.parse(nil)
		if err != nil {
			return s.problem(tag, prefix, err)
		}
		out = append(out, parsed)
	}
	return s.apply(tag, prefix, out)
}

func (s *stateStore) removeOne(c change) error {
	return s.removeAll("ERR_STATE_DELETE", fmt.Sprintf("failed deleting state with key %s: ", c.Key), c)
}

// has refuses what a store elsewhere cannot do.
func (s *stateStore) has(feature, reason, text string, code codes.Code) error {
	if s.features == nil || slices.Contains(s.features, feature) {
		return nil
	}
	return &problem{status: http.StatusInternalServerError, code: code, tag: "ERR_STATE_STORE_NOT_SUPPORTED", message: text, reason: reason,
		resource: &errdetails.ResourceInfo{ResourceType: "state", ResourceName: s.name}}
}

// transact does all operations or none.
func (s *stateStore) transact(operations []operation, query map[string]string) error {
	if err := s.has("TRANSACTIONAL", "DAPR_STATE_TRANSACTIONS_NOT_SUPPORTED", fmt.Sprintf("state store %s doesn't support transactions", s.name), codes.Unimplemented); err != nil {
		return err
	}
	if len(operations) > quipu.TxOpsMax {
		return &problem{status: http.StatusBadRequest, tag: "ERR_STATE_STORE_TOO_MANY_TRANSACTIONS", message: fmt.Sprintf(
			"the transaction contains %d operations, which is more than what the state store supports: %d", len(operations), quipu.TxOpsMax)}
	}
	const tag, prefix = "ERR_STATE_TRANSACTION", "error while executing state transaction: "
	out := make([]quipu.Change, 0, len(operations))
	for _, o := range operations {
		if o.Operation != "upsert" && o.Operation != "delete" {
			return &problem{status: http.StatusBadRequest, code: codes.Unimplemented, tag: "ERR_NOT_SUPPORTED_STATE_OPERATION",
				message: fmt.Sprintf("operation type %.40s not supported", o.Operation), reason: "ERR_NOT_SUPPORTED_STATE_OPERATION", terse: true}
		}
		o.Request.remove = o.Operation == "delete"
		c, err := o.Request.parse(query)
		if err != nil {
			return s.problem(tag, prefix, err)
		}
		out = append(out, c)
	}
	if s.outbox != nil && len(out) > 0 {
		return s.transactWithOutbox(operations, out, query)
	}
	return s.apply(tag, prefix, out)
}

// apply is nothing for nothing, as in Dapr.
func (s *stateStore) apply(tag, prefix string, changes []quipu.Change) error {
	if len(changes) == 0 {
		return nil
	}
	if err := s.state.Apply(s.r.Context(), s.store, changes); err != nil {
		return s.problem(tag, prefix, err)
	}
	return nil
}

// problem is Dapr's for etags.
func (s *stateStore) problem(tag, prefix string, err error) *problem {
	p := s.d.problem(s.r, tag, prefix, err)
	switch e := quipu.AsError(err); e.Code {
	case quipu.CodeETag:
		p.message, p.code = prefix+"possible etag mismatch. error from state store: "+e.Text, codes.Aborted
	case quipu.CodeETagForm:
		p.message, p.code = prefix+"invalid etag value: "+e.Text, codes.InvalidArgument
	default:
		return p
	}
	if tag == "ERR_STATE_TRANSACTION" { // the one place where Dapr says 500, which clients of transactions know
		p.status, p.code = http.StatusInternalServerError, codes.Internal
	}
	return p
}

// parse turns a client's change into ours.
func (c *change) parse(query map[string]string) (quipu.Change, error) {
	out := quipu.Change{Key: c.Key, Delete: c.remove}
	if c.Key == "" && !c.remove {
		return out, &problem{status: http.StatusBadRequest, tag: "ERR_MALFORMED_REQUEST", message: `"key" is a required field`}
	}
	if err := fits(c.Key); err != nil {
		return out, err
	}
	if c.ETag != nil {
		out.ETag = *c.ETag
	}
	if err := c.parseOptions(&out); err != nil || c.remove {
		return out, err
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

func (c *change) parseOptions(out *quipu.Change) error {
	switch c.Options.Concurrency {
	case "", "unspecified":
	case "first-write":
		out.FirstWrite = !c.remove // to delete what is not there is no conflict in Dapr
	case "last-write":
		out.ETag = ""
	default:
		return &quipu.Error{Code: quipu.CodeUsage, Text: fmt.Sprintf("unrecognized concurrency type '%.40s'", c.Options.Concurrency)}
	}
	switch c.Options.Consistency {
	case "", "unspecified", "strong", "eventual": // ours is always strong
		return nil
	}
	return &quipu.Error{Code: quipu.CodeUsage, Text: fmt.Sprintf("unrecognized consistency type '%.40s'", c.Options.Consistency)}
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

// metadataOf is what Dapr tells of an item.
func metadataOf(item quipu.Item) map[string]string {
	if item.Expires == 0 {
		return nil
	}
	return map[string]string{"ttlExpireTime": time.Unix(0, item.Expires).UTC().Format(time.RFC3339)}
}
