package dapr

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/cloudevent"
)

// destinationOf reads {pubsub}/{topic...} after a prefix of an escaped path. A topic may have slashes.
func destinationOf(escaped, prefix string) destination {
	_, rest, _ := strings.Cut(escaped, prefix)
	pubsub, topic, _ := strings.Cut(rest, "/")
	return destination{unescape(pubsub), unescape(strings.TrimRight(topic, "/"))}
}

// publish is POST publish/{pubsub}/{topic...}.
func (d *Door) publish(w http.ResponseWriter, r *http.Request) {
	if !allow(w, r, http.MethodPost, http.MethodPut) {
		return
	}
	to := destinationOf(r.URL.EscapedPath(), "/publish/")
	metadata := queryMetadata(r)
	d.limit(w, r)
	at, err := d.placeOf(r, to, metadata)
	var data []byte
	if err == nil {
		data, err = d.readEvent(r, to)
	}
	if err == nil {
		_, err = d.publishAll(r, at, []publication{{contentType: r.Header.Get("Content-Type"), data: data, metadata: metadata}})
	}
	if err != nil {
		d.fail(w, r, "ERR_PUBSUB_PUBLISH_MESSAGE", err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// readEvent reads no more than an event may have.
func (d *Door) readEvent(r *http.Request, to destination) ([]byte, error) {
	data, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, quipu.EventBytesMax))
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return nil, d.publishProblem(r, to, &quipu.Error{Code: quipu.CodeEventSize, Text: fmt.Sprintf("the event has more than %d bytes", over.Limit)})
	case err != nil:
		return nil, &problem{status: http.StatusBadRequest, tag: "ERR_BODY_READ", message: fmt.Sprintf("failed to read request body: %v", err)}
	}
	return data, nil
}

// bulkEntry is one of many in a request.
type bulkEntry struct {
	EntryID     string            `json:"entryId"`
	Event       json.RawMessage   `json:"event"`
	ContentType string            `json:"contentType"`
	Metadata    map[string]string `json:"metadata"`
}

// publishBulk is POST publish/bulk/{pubsub}/{topic...}. The entries are published together or, unlike in Dapr,
// none of them is.
func (d *Door) publishBulk(w http.ResponseWriter, r *http.Request) {
	if !allow(w, r, http.MethodPost, http.MethodPut) {
		return
	}
	to := destinationOf(r.URL.EscapedPath(), "/publish/bulk/")
	metadata := queryMetadata(r)
	d.limit(w, r)
	at, err := d.placeOf(r, to, metadata)
	var ps []publication
	if err == nil {
		ps, err = readBulk(r, to, metadata)
	}
	var failed []failedEntry
	if err == nil {
		failed, err = d.publishAll(r, at, ps)
	}
	if err != nil {
		d.failBulk(w, r, ps, failed, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// failBulk names the entries that failed, which are all unless some are named, if it is the publishing that failed.
func (d *Door) failBulk(w http.ResponseWriter, r *http.Request, ps []publication, failed []failedEntry, err error) {
	const tag = "ERR_PUBSUB_PUBLISH_MESSAGE"
	p := d.problem(r, tag, "", err)
	if p.reason != "DAPR_PUBSUB_PUBLISH_MESSAGE" {
		answerWith(w, p.status, p)
		return
	}
	if failed == nil {
		for _, one := range ps {
			failed = append(failed, failedEntry{one.entry, p.message})
		}
	}
	answerWith(w, p.status, map[string]any{"failedEntries": failed, "errorCode": tag})
}

// readBulk reads the entries and checks that each can be told from the others.
func readBulk(r *http.Request, to destination, metadata map[string]string) ([]publication, error) {
	var entries []bulkEntry
	if err := json.NewDecoder(r.Body).Decode(&entries); err != nil {
		var over *http.MaxBytesError
		if errors.As(err, &over) {
			return nil, err
		}
		return nil, to.bulkProblem("DAPR_PUBSUB_UNMARSHAL_EVENTS", "error when unmarshaling the request for topic %s pubsub %s: %v", err)
	}
	ps := make([]publication, 0, len(entries))
	for _, e := range entries {
		data, err := e.data()
		if err != nil {
			return nil, to.bulkProblem("DAPR_PUBSUB_MARSHAL_ENVELOPE", "error when marshalling cloud event envelope for topic %s pubsub %s: %v", err)
		}
		ps = append(ps, publication{entry: e.EntryID, contentType: e.ContentType, data: data, metadata: merged(metadata, e.Metadata)})
	}
	return ps, to.distinct(ps)
}

var errMismatch = errors.New("error: mismatch between contentType and event")

// data is what an entry's JSON stands for: JSON itself byte for byte, text of a string, bytes of base64.
func (e bulkEntry) data() ([]byte, error) {
	if cloudevent.IsJSON(e.ContentType) {
		if e.Event == nil {
			return []byte("null"), nil
		}
		return e.Event, nil
	}
	var s string
	if err := json.Unmarshal(e.Event, &s); err != nil {
		return nil, errMismatch
	}
	switch {
	case cloudevent.IsText(e.ContentType):
		return []byte(s), nil
	case cloudevent.IsBinary(e.ContentType):
		data, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return nil, fmt.Errorf("error: unable to decode base64 %s data: %w", "application/octet-stream", err)
		}
		return data, nil
	}
	return nil, errMismatch
}
