package gateway

import (
	"bufio"
	"encoding/json"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
	"github.com/quipu-run/quipu/test/fake"
)

func (h *house) publish(topic, query, body, contentType string) sdk.Published {
	h.t.Helper()
	var out sdk.Published
	r := h.ask("POST", adminPrefix+"/topics/"+url.PathEscape(topic)+"/events?"+query, body, "Content-Type: "+contentType, "Traceparent: 00-trace")
	if r.StatusCode != 200 {
		h.t.Fatalf("publish: %d %s", r.StatusCode, text(h.t, r))
	}
	h.must(json.Unmarshal([]byte(text(h.t, r)), &out))
	return out
}

func (h *house) events(topic, query string) (all []sdk.Event) {
	h.t.Helper()
	r := h.ask("GET", adminPrefix+"/topics/"+url.PathEscape(topic)+"/events?"+query, "")
	for line := range strings.Lines(text(h.t, r)) {
		var e sdk.Event
		h.must(json.Unmarshal([]byte(line), &e))
		all = append(all, e)
	}
	return all
}

// fields are those of an envelope.
func fields(t *testing.T, e sdk.Event) object {
	t.Helper()
	var out object
	if err := json.Unmarshal(e.Event, &out); err != nil {
		t.Fatalf("no envelope in %+v: %v", e, err)
	}
	return out
}

func (h *house) hasFields(e sdk.Event, want object) {
	h.t.Helper()
	got := fields(h.t, e)
	for name, value := range want {
		if !reflect.DeepEqual(got[name], value) {
			h.t.Errorf("%s is %#v, want %#v", name, got[name], value)
		}
	}
}

func TestDataIsPublishedInAnEnvelopeByItsContentType(t *testing.T) {
	h := open(t, "")
	for _, c := range []struct {
		kind, body string
		want       object
	}{
		{"application/json; charset=utf-8", `{"a":[1]}`, object{"data": object{"a": []any{1.0}}}},
		{"text/plain", "<é>", object{"data": "<é>", "datacontenttype": "text/plain"}},
		{"application/octet-stream", "text all the same", object{"data": nil, "data_base64": "dGV4dCBhbGwgdGhlIHNhbWU="}},
		{"image/png", "\xff\x00", object{"data": nil, "data_base64": "/wA="}},
	} {
		id := h.publish(oddTopic, "subject=s&type=t&source=%2Fme&extension=tenant%3Da%3Db&ttl=1h", c.body, c.kind).ID
		last := h.events(oddTopic, "")
		e := last[len(last)-1]
		h.hasFields(e, c.want)
		h.hasFields(e, object{"id": id, "specversion": "1.0", "topic": oddTopic, "pubsubname": "pubsub", "subject": "s", "type": "t",
			"source": "/me", "tenant": "a=b", "traceparent": "00-trace"})
		if e.Expires != fake.Epoch.Add(time.Hour) || e.Data != nil || e.DataBase64 != nil || fields(t, e)["expiration"] == nil {
			t.Errorf("got %+v", e)
		}
	}
}

func TestAnEventStaysWhatItIsAndTheQueryComesFirst(t *testing.T) {
	h := open(t, "")
	event := `{"specversion":"1.0","id":"7","source":"shop","type":"sold","mine":{"deep":1},"data":"x"}`
	if id := h.publish("t", "", event, "application/cloudevents+json; charset=UTF-8").ID; id != "7" {
		t.Errorf("id %q", id)
	}
	if id := h.publish("t", "id=8&type=returned", event, "application/cloudevents+json").ID; id != "8" {
		t.Errorf("id %q", id)
	}
	got := h.events("t", "")
	h.hasFields(got[0], object{"id": "7", "source": "shop", "type": "sold", "mine": object{"deep": 1.0}, "data": "x", "topic": "t"})
	h.hasFields(got[1], object{"id": "8", "source": "shop", "type": "returned"})
}

// SDKs of CloudEvents send attributes as headers unless they are told otherwise.
func TestAnEventInBinaryModeKeepsTheAttributesOfItsHeaders(t *testing.T) {
	h := open(t, "")
	send := func(headers ...string) int {
		headers = append(headers, "Ce-Specversion: 1.0", "Ce-Id: 7", "Ce-Type: sold", "Content-Type: application/json")
		return h.ask("POST", adminPrefix+"/topics/t/events?subject=mine", `{"n":1}`, headers...).StatusCode
	}
	if status := send("Ce-Source: shop%20one", "Ce-Subject: theirs", "Ce-Tenant: a", "Ce-Time: 2026-01-01T00:00:00Z"); status != 200 {
		t.Fatalf("status %d", status)
	}
	got := h.events("t", "")
	h.hasFields(got[0], object{"specversion": "1.0", "id": "7", "source": "shop one", "type": "sold", "subject": "mine", "tenant": "a",
		"time": "2026-01-01T00:00:00Z", "data": object{"n": 1.0}})
	for _, wrong := range [][]string{{}, {"Ce-Source: s", "Ce-Time: now"}, {"Ce-Source: s", "Ce-My-Own: x"}, {"Ce-Source: %zz"}} {
		if status := send(wrong...); status != 400 || len(h.events("t", "")) != 1 {
			t.Errorf("%q: status %d", wrong, status)
		}
	}
}

func TestRawDataIsPublishedAsItIs(t *testing.T) {
	h := open(t, "")
	h.publish("t", "raw&id=mine", `{"a":1}`, "application/json")
	h.publish("t", "raw", "<plain>", "text/plain")
	h.publish("t", "raw", "\xff", "")
	got := h.events("t", "")
	if e := got[0]; e.MessageID != "mine" || string(e.Data) != `{"a":1}` || e.ContentType != "application/json" || e.Event != nil {
		t.Errorf("got %+v", e)
	}
	if e := got[1]; !strings.Contains(string(e.Data), "plain") || e.MessageID == "" {
		t.Errorf("got %s", e.Data)
	}
	if e := got[2]; string(e.DataBase64) != "\xff" || e.Data != nil {
		t.Errorf("got %+v", e)
	}
}

func TestABatchIsPublishedInOnePieceAndItsIdsKeepTheirOrder(t *testing.T) {
	h := open(t, "")
	second := strings.Replace(goodEvent, `"1","source"`, `"2","source"`, 1)
	out := h.publish("t", "", "["+second+","+goodEvent+"]", quipu.MediaCloudBatch)
	if !slices.Equal(out.IDs, []string{"2", "1"}) || out.ID != "" {
		t.Errorf("answered %+v", out)
	}
	got := h.events("t", "")
	if len(got) != 2 || got[0].ID != "0000100000000001.0" || got[1].ID != "0000100000000001.1" {
		t.Errorf("two events of one record, but %+v", got)
	}
	if out := h.publish("t", "", "[]", quipu.MediaCloudBatch); out.IDs == nil || len(out.IDs) != 0 || len(h.events("t", "")) != 2 {
		t.Errorf("an empty batch: %+v", out)
	}
}

func TestADelayedMessageCanBeTakenBackOnce(t *testing.T) {
	h := furnished(t)
	path := adminPrefix + "/topics/" + url.PathEscape(oddTopic) + "/delayed/later"
	if r := h.ask("DELETE", path, ""); r.StatusCode != 204 {
		t.Fatalf("cancel: %d", r.StatusCode)
	}
	refused(t, h.ask("DELETE", path, ""), quipu.CodeNotFound)
}

func TestEveryFormOfAPositionMeansOnePlace(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]quipu.Position{
		"end":                       {},
		"latest":                    {},
		"earliest":                  {Earliest: true},
		"7":                         {Offset: 7},
		"0":                         {Earliest: true},
		"0000100000000007":          {Seq: quipu.MakeSeq(1, 7)},
		"0000000000000000":          {Earliest: true},
		"18446744073709551615":      {Offset: 1<<64 - 1},
		"2026-05-01T10:00:00+02:00": {Time: time.Date(2026, 5, 1, 8, 0, 0, 0, time.UTC)},
		"0001-01-01T00:00:00Z":      {Earliest: true},
		"-90m":                      {Time: now.Add(-90 * time.Minute)},
		"-2d":                       {Time: now.Add(-48 * time.Hour)},
	} {
		got, err := positionOf(text, now)
		same := got.Time.Equal(want.Time)
		got.Time, want.Time = time.Time{}, time.Time{}
		if err != nil || !same || got != want {
			t.Errorf("%s: %+v, %v; want %+v", text, got, err, want)
		}
	}
}

func TestAPartOfATopicIsRead(t *testing.T) {
	h := furnished(t)
	for query, want := range map[string][]uint64{
		"":                                    {1, 2, 3},
		"from=2&limit=1":                      {2},
		"from=end":                            nil,
		"from=0000100000000009":               nil,
		"from=2026-01-02T03:04:05Z":           {1, 2, 3},
		"from=2026-01-02T03:04:06Z&limit=100": nil,
	} {
		var got []uint64
		for _, e := range h.events(oddTopic, query) {
			got = append(got, e.Offset)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: read %v, want %v", query, got, want)
		}
	}
	if got := h.events("nothing here", ""); got != nil {
		t.Errorf("a topic that does not exist has %v", got)
	}
	if e := h.events("mailer-dead", "")[0]; e.Dead == nil || e.Dead.Attempts != 11 || e.Dead.Topic != oddTopic {
		t.Errorf("a dead letter does not say why: %+v", e)
	}
}

// The first event of a topic that did not exist when the stream began is in it.
func TestWhoFollowsMissesNothingThatIsPublishedAfterTheStreamBegan(t *testing.T) {
	h := open(t, "")
	for _, topic := range []string{"new", "new"} {
		r := h.ask("GET", adminPrefix+"/topics/"+topic+"/events?follow&limit=2", "")
		want := []string{h.publish(topic, "", "1", "text/plain").ID, h.publish(topic, "", "2", "text/plain").ID}
		var got []string
		for lines := bufio.NewScanner(r.Body); lines.Scan(); {
			var e sdk.Event
			h.must(json.Unmarshal(lines.Bytes(), &e))
			got = append(got, fields(t, e)["id"].(string))
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestANodeThatDrainsEndsTheStreamOfEvents(t *testing.T) {
	h := furnished(t)
	r := h.ask("GET", adminPrefix+"/topics/mailer-dead/events?follow&from=1", "")
	lines := bufio.NewScanner(r.Body)
	if !lines.Scan() {
		t.Fatal("no event")
	}
	h.gw.Drain()
	if lines.Scan() || lines.Err() != nil {
		t.Errorf("after the drain: %q, %v", lines.Text(), lines.Err())
	}
}

func TestASubscriptionIsMovedAndDeadLettersGoBack(t *testing.T) {
	h := furnished(t)
	topic := adminPrefix + "/topics/" + url.PathEscape(oddTopic)
	lag := func() uint64 {
		var info quipu.TopicInfo
		h.must(json.Unmarshal([]byte(text(t, h.ask("GET", topic, ""))), &info))
		return info.Subscriptions[0].Lag
	}
	if lag() != 3 {
		t.Errorf("lag %d before", lag())
	}
	h.ask("POST", topic+"/subscriptions/mail%2Fer/seek", `{"from":"3"}`)
	if lag() != 1 {
		t.Errorf("lag %d after a seek to the third of three", lag())
	}
	if got := text(t, h.ask("POST", adminPrefix+"/topics/mailer-dead/redrive", "")); got != "{\"redriven\":1}\n" {
		t.Errorf("redrive answered %s", got)
	}
}
