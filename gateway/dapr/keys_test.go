package dapr

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/component"
	"github.com/quipu-run/quipu/test/fake"
	"google.golang.org/grpc/codes"
)

const alpha = "/v1.0-alpha1/state/statestore"

func TestKeysAreListedAndDeletedByTheirPrefix(t *testing.T) {
	h := open(t)
	h.want(204, "", "POST "+store, `[{"key":"a1","value":1},{"key":"a2","value":{"n":2}},{"key":"b","value":3}]`)
	h.want(204, "", "POST "+store, `[{"key":"a3","value":4}]`, "dapr-caller-app-id: other")
	h.want(200, `{"keys":["a1","a2","b"]}`, "GET "+alpha+"/keys", "")
	h.want(200, `{"keys":["a1"],"next":"a1"}`, "GET "+alpha+"/keys?prefix=a&limit=1", "")
	h.want(200, `{"items":[{"key":"a2","data":{"n":2},"etag":"0000000000000002"}]}`, "GET "+alpha+"/keys?prefix=a&after=a1&values=true", "")
	h.want(200, `{"keys":[]}`, "GET "+alpha+"/keys?prefix=zz", "")
	h.want(200, `{"keys":["a1","a2"]}`, "GET "+alpha+"/keys?like=a_", "")
	h.want(200, `{"keys":["a2"]}`, "GET "+alpha+"/keys?like=%252", "")
	h.want(200, `{"keys":[]}`, "GET "+alpha+`/keys?like=a%5C_`, "")
	h.want(200, `{"deleted":2}`, "DELETE "+alpha+"/keys?prefix=a", "")
	h.want(200, `{"keys":["b"]}`, "GET "+alpha+"/keys", "")
	h.want(200, `{"keys":["a3"]}`, "GET "+alpha+"/keys", "", "dapr-caller-app-id: other")
	for request, says := range map[string]string{
		"DELETE " + alpha + "/keys":                     "prefix is missing",
		"GET " + alpha + "/keys?limit=1001":             "limit must be a number from 1 to 1000",
		"GET " + alpha + "/keys?like=a&prefix=a":        "prefix and like cannot",
		"GET " + alpha + "/keys?like=a%5C":              "like is no pattern",
		"GET " + alpha + "/keys?values=perhaps":         "values must be true or false",
		"GET /v1.0-alpha1/state/nope/keys":              "state store nope is not found",
		"DELETE /v1.0-alpha1/state/nope/keys?prefix=":   "ERR_STATE_STORE_NOT_FOUND",
		"POST /v1.0-alpha1/state/nope/query":            "ERR_STATE_STORE_NOT_FOUND",
		"POST " + alpha + "/query":                      "ERR_STATE_QUERY",
		"GET " + alpha + "/keys?limit=0&values=perhaps": "limit must be a number from 1 to 1000",
	} {
		h.want(400, says, request, "")
	}
	h.want(405, "", "POST "+alpha+"/keys", "")
	h.want(405, "", "GET "+alpha+"/query", "")
	h.want(200, `{"deleted":1}`, "DELETE "+alpha+"/keys?prefix=", "")
	if left := h.keysIn(quipu.StoreDefault); len(left) != 0 {
		t.Errorf("%q are left", left)
	}
}

// endless has as many keys as are asked for, and counts the deleted ones.
type endless struct {
	quipu.State
	keys, deleted int
}

func (e *endless) List(_ context.Context, _ string, r quipu.ListRequest) (quipu.Page, error) {
	next := 0
	if r.After != "" {
		fmt.Sscanf(r.After, "k%07d", &next)
		next++
	}
	var page quipu.Page
	for ; next < e.keys && len(page.Items) < r.Limit; next++ {
		page.Items = append(page.Items, quipu.Item{Key: fmt.Sprintf("k%07d", next), Value: []byte(`{"n":1}`), ETag: "1"})
	}
	if next < e.keys {
		page.Next = page.Items[len(page.Items)-1].Key
	}
	return page, nil
}

func (e *endless) Apply(_ context.Context, _ string, changes []quipu.Change) error {
	e.deleted += len(changes)
	return nil
}

func TestOneRequestDoesNotReadOrDeleteWithoutEnd(t *testing.T) {
	h := open(t)
	big := &endless{keys: queryScanMax + 1}
	h.with(loaded("big", "state.other", component.State{Foreign: big}))
	h.want(400, "the store has more than 100000 keys", "POST /v1.0-alpha1/state/big/query", `{"filter":{"EQ":{"n":2}}}`)
	h.want(200, `{"deleted":100000,"more":true}`, "DELETE /v1.0-alpha1/state/big/keys?prefix=k", "")
	if big.deleted != deleteKeysMax {
		t.Errorf("%d keys were deleted", big.deleted)
	}
	h.want(400, "page.limit", "POST /v1.0-alpha1/state/big/query", `{}`)
	h.want(200, `"token":"5"`, "POST /v1.0-alpha1/state/big/query", `{"page":{"limit":5}}`)
}

// people are the documents of Dapr's own examples.
const people = `[{"key":"1","value":{"person":{"org":"A","name":"Ann","id":1036},"state":"CA"}},
{"key":"2","value":{"person":{"org":"B","name":"Bob","id":1028},"state":"WA"}},
{"key":"3","value":{"person":{"org":"A","name":"Cyd","id":1071},"state":"WA"}},
{"key":"4","value":{"person":{"org":"B","name":"Dan","id":1042},"state":"CA"}},
{"key":"5","value":"no object"}]`

func TestAQueryFindsWhatItsFilterAsksForInItsOrder(t *testing.T) {
	h := open(t)
	h.want(204, "", "POST "+store, people)
	for query, want := range map[string]string{
		`{"filter":{"EQ":{"state":"CA"}}}`:                                            "1 4",
		`{"filter":{"EQ":{"state":"CA"}},"page":{"limit":1}}`:                         "1 token=1",
		`{"filter":{"EQ":{"state":"CA"}},"page":{"limit":1,"token":"1"}}`:             "4",
		`{"sort":[{"key":"person.id","order":"DESC"}],"page":{"limit":2}}`:            "3 4 token=2",
		`{"sort":[{"key":"state","order":"DESC"},{"key":"person.name"}]}`:             "2 3 1 4 5",
		`{"filter":{"AND":[{"EQ":{"person.org":"A"}},{"IN":{"state":["CA","WA"]}}]}}`: "1 3",
		`{"filter":{"OR":[{"GT":{"person.id":1042}},{"LT":{"person.id":1036}}]}}`:     "2 3",
		`{"filter":{"AND":[{"NEQ":{"person.org":"B"}},{"GTE":{"person.id":1036}}]}}`:  "1 3",
	} {
		_, body, _ := h.ask("POST "+alpha+"/query?metadata.contentType=application/json", query)
		var got struct {
			Results []struct{ Key, ETag string }
			Token   string
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatalf("%s: %v: %s", query, err, body)
		}
		var keys []string
		for _, r := range got.Results {
			if keys = append(keys, r.Key); r.ETag == "" {
				t.Errorf("%s: no etag in %s", query, body)
			}
		}
		if got.Token != "" {
			keys = append(keys, "token="+got.Token)
		}
		if strings.Join(keys, " ") != want {
			t.Errorf("%s: got %q, want %q", query, keys, want)
		}
	}
	h.want(204, "", "POST "+alpha+"/query", `{"filter":{"EQ":{"state":"NY"}}}`)
	c := h.grpc()
	got, err := c.QueryStateAlpha1(t.Context(), &rtv1.QueryStateRequest{StoreName: "statestore", Query: `{"filter":{"EQ":{"person.id":1028}},"page":{"limit":9}}`})
	if err != nil || len(got.GetResults()) != 1 || got.GetResults()[0].GetKey() != "2" || got.GetToken() != "" || !json.Valid(got.GetResults()[0].GetData()) {
		t.Errorf("%v %v", got, err)
	}
	_, err = c.QueryStateAlpha1(t.Context(), &rtv1.QueryStateRequest{StoreName: "statestore", Query: `{"filter":{"LIKE":{"a":1}}}`})
	c.fails(err, codes.InvalidArgument, "DAPR_STATE_QUERY_FAILED", `state store statestore query failed: unsupported filter "LIKE"`)
}

func TestAStoreOfAComponentIsWhereItSays(t *testing.T) {
	h := open(t)
	h.with(loaded("mine", "state.redis", component.State{Store: quipu.StoreShared}))
	h.want(204, "", "POST /v1.0/state/mine", `[{"key":"k","value":1}]`)
	if got := h.keysIn(quipu.StoreShared); !slices.Equal(got, []string{"k"}) {
		t.Errorf("keys %q", got)
	}
	h.alone()
	h.want(500, "ERR_STATE_STORE_NOT_CONFIGURED", "GET /v1.0/state/mine/k", "")
	c := h.grpc()
	_, err := c.GetState(t.Context(), &rtv1.GetStateRequest{StoreName: "mine", Key: "k"})
	c.fails(err, codes.FailedPrecondition, "DAPR_STATE_NOT_CONFIGURED", "state store mine is not configured")
}

// plain is a store that can do what it says and no more.
type plain struct {
	quipu.State
	can []string
}

func (p plain) Features() []string { return p.can }

func TestAStoreElsewhereIsNotAskedForWhatItCannotDo(t *testing.T) {
	h := open(t)
	h.with(loaded("none", "state.other", component.State{Foreign: plain{h.ns.State("x"), []string{}}, Store: quipu.StoreShared}),
		loaded("all", "state.other", component.State{Foreign: plain{h.ns.State("x"), []string{"TRANSACTIONAL", "QUERY_API"}}, Store: quipu.StoreShared}))
	const body = `{"operations":[{"operation":"upsert","request":{"key":"a","value":1}}]}`
	h.want(500, "state store none doesn't support transactions", "POST /v1.0/state/none/transaction", body)
	h.want(500, "ERR_STATE_STORE_NOT_SUPPORTED", "POST /v1.0-alpha1/state/none/query", `{}`)
	h.want(204, "", "POST /v1.0/state/all/transaction", body)
	h.want(200, `"key":"a"`, "POST /v1.0-alpha1/state/all/query", `{}`)
	c := h.grpc()
	_, err := c.ExecuteStateTransaction(t.Context(), &rtv1.ExecuteStateTransactionRequest{StoreName: "none"})
	c.fails(err, codes.Unimplemented, "DAPR_STATE_TRANSACTIONS_NOT_SUPPORTED", "doesn't support transactions")
	_, err = c.QueryStateAlpha1(t.Context(), &rtv1.QueryStateRequest{StoreName: "none"})
	c.fails(err, codes.Internal, "DAPR_STATE_QUERYING_NOT_SUPPORTED", "does not support querying")
}

func BenchmarkFindingAStoreAndAPubSub(b *testing.B) {
	ns := fake.New()
	d := New(Options{Session: func(*http.Request) (quipu.Session, error) { return ns.Session("shop"), nil }})
	r, err := http.NewRequest("GET", "http://localhost/", nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("state", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := d.open(r, "statestore", "tag"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("pubsub", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := d.placeOf(r, destination{"pubsub", "t"}, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
}
