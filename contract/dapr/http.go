package dapr

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/quipu-run/quipu"
)

// HTTP is an application that speaks HTTP, seen as Dapr sees it: requests carry its token, and a batch of events goes
// in Dapr's bulk envelope.
type HTTP struct {
	App          // required
	Token string // APP_API_TOKEN of the application; "" sends none
}

// Do is App's.
func (a HTTP) Do(r *http.Request) (*http.Response, error) {
	if a.Token != "" {
		r.Header.Set(tokenHeader, a.Token)
	}
	if strings.HasPrefix(r.Header.Get(quipu.HeaderTrigger), "topic") && strings.HasPrefix(r.Header.Get("Content-Type"), quipu.MediaCloudBatch) {
		return a.bulk(r)
	}
	return a.App.Do(r)
}

// Close drops connections, if App has such.
func (a HTTP) Close() {
	if c, ok := a.App.(interface{ Close() }); ok {
		c.Close()
	}
}

// bulkEntry is one event of a bulk.
type bulkEntry struct {
	EntryID     string            `json:"entryId"`
	Event       json.RawMessage   `json:"event"`
	Metadata    map[string]string `json:"metadata"`
	ContentType string            `json:"contentType"`
}

// bulk changes the batch on its way there, and the statuses of its events on the way back.
func (a HTTP) bulk(r *http.Request) (*http.Response, error) {
	body, n, err := toBulk(r)
	if err != nil {
		return nil, err
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Content-Length", strconv.Itoa(len(body)))
	resp, err := a.App.Do(r)
	if err != nil || resp.StatusCode < 200 || resp.StatusCode > 299 {
		return resp, err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(io.LimitReader(resp.Body, sayBytesMax))
	if err != nil {
		return nil, failure(r.Context(), err)
	}
	return judged(r, judgeBulk(said, n)), nil
}

func toBulk(r *http.Request) (body []byte, n int, err error) {
	given, err := io.ReadAll(io.LimitReader(r.Body, messageBytesMaxDefault))
	if err != nil {
		return nil, 0, err
	}
	_ = r.Body.Close() // it was read
	var events []json.RawMessage
	if err := json.Unmarshal(given, &events); err != nil {
		return nil, 0, &quipu.Error{Code: quipu.CodeCloudEvent, Op: "event.read", Text: "a batch to be delivered is no JSON list", Err: err}
	}
	var first struct {
		Topic  string `json:"topic"`
		PubSub string `json:"pubsubname"`
	}
	entries := make([]bulkEntry, 0, len(events))
	for i, e := range events {
		if i == 0 && json.Unmarshal(e, &first) != nil {
			return nil, 0, &quipu.Error{Code: quipu.CodeCloudEvent, Op: "event.read", Text: "an event to be delivered is no JSON object"}
		}
		entries = append(entries, bulkEntry{EntryID: strconv.Itoa(i), Event: e, ContentType: quipu.MediaCloudEvent})
	}
	body, err = json.Marshal(map[string]any{"id": r.Header.Get(quipu.HeaderCallID), "type": bulkType, "topic": first.Topic, "pubsubname": first.PubSub,
		"metadata": map[string]string{"pubsubName": first.PubSub}, "entries": entries})
	return body, len(entries), err
}

// judgeBulk reads the statuses of n events. Without any, as in Dapr, all failed.
func judgeBulk(body []byte, n int) quipu.Outcome {
	var reply struct {
		Statuses []struct {
			EntryID string `json:"entryId"`
			Status  string `json:"status"`
		} `json:"statuses"`
	}
	if json.Unmarshal(body, &reply) != nil {
		return quipu.Retry
	}
	said := map[string]quipu.Outcome{}
	for _, one := range reply.Statuses {
		if one.Status != "" { // which in a bulk is no answer
			said[one.EntryID] = outcome(one.Status)
		}
	}
	return together(said, n)
}
