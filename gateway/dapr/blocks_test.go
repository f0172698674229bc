package dapr

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/component"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
)

// echoBinding answers with what it was asked for.
type echoBinding struct{}

func (echoBinding) Operations() []string { return []string{"create", "fail", "refuse", "hush"} }

func (echoBinding) Invoke(_ context.Context, r component.BindingRequest) (component.BindingReply, error) {
	reply := component.BindingReply{Data: r.Data, Metadata: map[string]string{"statusCode": "200", "saw": r.Metadata["a"] + r.Metadata["traceparent"], "odd": "a\nb", "o d": "d"}}
	if r.Operation == "refuse" {
		return reply, component.Failed("binding.other", errors.New("received status code 404"))
	}
	if r.Operation == "hush" {
		return component.BindingReply{}, nil
	}
	if r.Operation == "fail" {
		return reply, errors.New("the password is hunter2")
	}
	return reply, nil
}

func TestAnOutputBindingIsInvoked(t *testing.T) {
	h := open(t)
	h.with(loaded("out", "bindings.other", echoBinding{}))
	const to = "POST /v1.0/bindings/out"
	head := h.want(200, `{"b": 1}`, to, `{"operation":"create","data":{"b": 1},"metadata":{"a":"x"}}`, "traceparent: -tp")
	if head.Get("metadata.saw") != "x-tp" || head.Get("metadata.statusCode") != "200" {
		t.Errorf("%v", head)
	}
	h.want(200, "null", "PUT /v1.0/bindings/out", `{"operation":"create"}`)
	h.want(204, "", to, `{"operation":"hush"}`)
	if head := h.want(500, "error invoking output binding out: internal error", to, `{"operation":"fail"}`); head.Get("metadata.statusCode") != "200" {
		t.Errorf("the metadata of a failure is lost: %v", head)
	}
	h.want(500, "error invoking output binding out: received status code 404 [Q0724]", to, `{"operation":"refuse"}`)
	h.want(500, "error invoking output binding out: operation field is missing from request", to, `{}`)
	h.want(500, "binding out does not support operation get. supported operations:create fail refuse hush", to, `{"operation":"get"}`)
	h.want(500, "error invoking output binding none: couldn't find output binding none", "POST /v1.0/bindings/none", `{"operation":"create"}`)
	h.want(500, "ERR_INVOKE_OUTPUT_BINDING", "POST /v1.0/bindings/statestore", `{"operation":"create"}`)
	h.want(400, "ERR_MALFORMED_REQUEST", to, `{"operation":1}`)
	h.want(400, "invalid baggage header", to, `{"operation":"create"}`, "baggage: =;=")
	h.want(413, "ERR_BODY_READ", to, `{"data":"`+strings.Repeat("x", 5000)+`"}`)
	h.want(405, "", "GET /v1.0/bindings/out", "")
	c := h.grpc()
	var md metadata.MD
	got, err := c.InvokeBinding(c.as("shop", "traceparent", "-tp"), &rtv1.InvokeBindingRequest{Name: "out", Operation: "create", Data: []byte("\x00"), Metadata: map[string]string{"a": "x"}}, grpc.Header(&md))
	if err != nil || string(got.GetData()) != "\x00" || got.GetMetadata()["saw"] != "x-tp" || md.Get("metadata.saw")[0] != "x-tp" || len(md.Get("metadata.odd")) != 0 || got.GetMetadata()["odd"] != "a\nb" {
		t.Errorf("%v %v %v", got, err, md)
	}
	_, err = c.InvokeBinding(t.Context(), &rtv1.InvokeBindingRequest{Name: "none", Operation: "create"})
	c.fails(err, codes.Internal, "ERR_INVOKE_OUTPUT_BINDING", "couldn't find output binding none")
	_, err = c.InvokeBinding(t.Context(), &rtv1.InvokeBindingRequest{Name: "out", Operation: "fail"})
	c.fails(err, codes.Internal, "ERR_INVOKE_OUTPUT_BINDING", "internal error")
}

// locks are owners by resource. Nothing expires here.
type locks struct {
	mu     sync.Mutex
	owners map[string]string
	token  uint64
	expiry time.Duration // that was asked for last
}

func (l *locks) TryLock(_ context.Context, resource, owner string, expiry time.Duration) (uint64, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.owners[resource] != "" {
		return 0, false, nil
	}
	l.owners[resource], l.expiry = owner, expiry
	l.token++
	return 1<<60 + l.token, true, nil
}

func (l *locks) Renew(_ context.Context, resource, owner string, expiry time.Duration) (component.Unlocked, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.owners[resource] == owner {
		l.expiry = expiry
	}
	return l.state(resource, owner), nil
}

func (l *locks) state(resource, owner string) component.Unlocked {
	switch l.owners[resource] {
	case "":
		return component.UnlockMissing
	case owner:
		return component.UnlockDone
	}
	return component.UnlockOthers
}

func (l *locks) Unlock(_ context.Context, resource, owner string) (component.Unlocked, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if owner == "broken" {
		return component.UnlockFailed, errors.New("the password is hunter2")
	}
	became := l.state(resource, owner)
	if became == component.UnlockDone {
		delete(l.owners, resource)
	}
	return became, nil
}

const (
	lockPath   = "POST /v1.0-alpha1/lock/locks"
	unlockPath = "POST /v1.0-alpha1/unlock/locks"
)

func TestALockIsTakenRenewedAndGivenBack(t *testing.T) {
	h, l := open(t), &locks{owners: map[string]string{}}
	h.with(loaded("locks", "lock.other", l))
	const ada, bob = `{"resourceId":"r","lockOwner":"ada","expiryInSeconds":60}`, `{"resourceId":"r","lockOwner":"bob","expiryInSeconds":60}`
	h.want(200, `{"success":true,"fencingToken":"1152921504606846977"}`, lockPath, ada)
	h.want(200, `{"success":false}`, lockPath, bob)
	h.want(200, `{"status":2}`, unlockPath, bob)
	h.want(200, `{"status":0}`, lockPath+"/renew", `{"resourceId":"r","lockOwner":"ada","expiryInSeconds":90}`)
	if l.expiry != 90*time.Second {
		t.Errorf("it expires after %s", l.expiry)
	}
	h.want(200, `{"status":2}`, lockPath+"/renew", bob)
	h.want(200, `{"status":0}`, unlockPath, ada)
	h.want(200, `{"status":1}`, unlockPath, ada)
	c := h.grpc()
	var md metadata.MD
	ask := &rtv1.TryLockRequest{StoreName: "locks", ResourceId: "g", LockOwner: "ada", ExpiryInSeconds: 1}
	got, err := c.TryLockAlpha1(t.Context(), ask, grpc.Header(&md))
	if err != nil || !got.GetSuccess() || md.Get(headerFencing)[0] != "1152921504606846978" {
		t.Errorf("%v %v %v", got, err, md)
	}
	if got, err := c.TryLockAlpha1(t.Context(), ask); err != nil || got.GetSuccess() {
		t.Errorf("%v %v", got, err)
	}
	if got, err := c.UnlockAlpha1(t.Context(), &rtv1.UnlockRequest{StoreName: "locks", ResourceId: "g", LockOwner: "bob"}); err != nil || got.GetStatus() != rtv1.UnlockResponse_LOCK_BELONGS_TO_OTHERS {
		t.Errorf("%v %v", got, err)
	}
}

func TestALockThatCannotBeOneIsRefused(t *testing.T) {
	h := open(t)
	const ask = `{"resourceId":"r","lockOwner":"ada","expiryInSeconds":60}`
	h.want(500, "ERR_LOCK_STORE_NOT_CONFIGURED", lockPath, ask)
	c := h.grpc()
	_, err := c.UnlockAlpha1(t.Context(), &rtv1.UnlockRequest{StoreName: "locks"})
	c.fails(err, codes.FailedPrecondition, "", "lock store is not configured")
	h.with(loaded("locks", "lock.other", &locks{owners: map[string]string{}}))
	for _, bad := range []struct {
		status              int
		code, request, body string
	}{
		{400, "ExpiryInSeconds is not positive in lock store locks", lockPath, `{"resourceId":"r","lockOwner":"ada"}`},
		{400, "ResourceId is empty in lock store locks", lockPath, `{"lockOwner":"ada","expiryInSeconds":60}`},
		{400, "LockOwner is empty in lock store locks", lockPath, `{"resourceId":"r","expiryInSeconds":60}`},
		{400, "ERR_MALFORMED_REQUEST", lockPath, `{"resourceId":1}`},
		{400, "ERR_MALFORMED_REQUEST", unlockPath, `x`},
		{400, "ERR_MALFORMED_REQUEST", lockPath, `{"resourceId":"` + strings.Repeat("r", 1025) + `","lockOwner":"ada","expiryInSeconds":60}`},
		{400, "lock store statestore not found", "POST /v1.0-alpha1/lock/statestore", ask},
		{400, "ERR_LOCK_STORE_NOT_FOUND", "POST /v1.0-alpha1/unlock/nope", ask},
		{400, "ExpiryInSeconds", lockPath + "/renew", `{"resourceId":"r","lockOwner":"ada","expiryInSeconds":-1}`},
		{400, "ResourceId is empty", lockPath + "/renew", `{"expiryInSeconds":1}`},
		{500, "ERR_TRY_LOCK", lockPath, `{"resourceId":"a||b","lockOwner":"ada","expiryInSeconds":60}`},
		{500, "failed to release lock: input key/keyPrefix 'a||b' can't contain '||'", unlockPath, `{"resourceId":"a||b","lockOwner":"ada"}`},
		{500, "failed to release lock: internal error", unlockPath, `{"resourceId":"r","lockOwner":"broken"}`},
		{405, "", "PUT /v1.0-alpha1/lock/locks", ask},
		{404, "ERR_DIRECT_INVOKE", "POST /v1.0-alpha1/unlock/locks/renew", ask},
		{413, "ERR_BODY_READ", lockPath, strings.Repeat(" ", 5000)},
	} {
		h.want(bad.status, bad.code, bad.request, bad.body)
	}
	c = h.grpc()
	_, err = c.TryLockAlpha1(t.Context(), &rtv1.TryLockRequest{StoreName: "nope", ResourceId: "r", LockOwner: "ada", ExpiryInSeconds: 1})
	c.fails(err, codes.InvalidArgument, "", "lock store nope not found")
}

// settings is a configuration store whose changes come from a channel.
type settings struct {
	items   map[string]component.ConfigItem
	changes chan map[string]component.ConfigItem
	open    sync.WaitGroup
	fails   error
}

func (s *settings) Get(_ context.Context, keys []string, _ map[string]string) (map[string]component.ConfigItem, error) {
	if len(keys) == 0 {
		return s.items, s.fails
	}
	out := map[string]component.ConfigItem{}
	for _, key := range keys {
		if item, ok := s.items[key]; ok {
			out[key] = item
		}
	}
	return out, s.fails
}

func (s *settings) Subscribe(ctx context.Context, _ []string, _ map[string]string, ready func(), changed func(map[string]component.ConfigItem)) error {
	if s.fails != nil {
		return s.fails
	}
	s.open.Add(1)
	defer s.open.Done()
	ready()
	for {
		select {
		case items := <-s.changes:
			changed(items)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (h *house) configured() *settings {
	s := &settings{items: map[string]component.ConfigItem{"a": {Value: "1", Version: "v1"}, "b": {Value: "2", Metadata: map[string]string{"m": "x"}}}, changes: make(chan map[string]component.ConfigItem)}
	h.with(loaded("conf", "configuration.other", s))
	return s
}

func TestConfigurationIsRead(t *testing.T) {
	h := open(t)
	h.want(500, "ERR_CONFIGURATION_STORE_NOT_CONFIGURED", "GET /v1.0/configuration/conf", "")
	c := h.grpc()
	_, err := c.GetConfiguration(t.Context(), &rtv1.GetConfigurationRequest{StoreName: "conf"})
	c.fails(err, codes.FailedPrecondition, "ERR_CONFIGURATION_STORE_NOT_CONFIGURED", "configuration stores not configured")
	s := h.configured()
	for _, version := range []string{"v1.0", "v1.0-alpha1"} {
		h.want(200, `{"a":{"value":"1","version":"v1"},"b":{"value":"2","metadata":{"m":"x"}}}`, "GET /"+version+"/configuration/conf", "")
	}
	h.want(200, `{"a":{"value":"1","version":"v1"}}`, "GET /v1.0/configuration/conf?key=a&key=zz", "")
	h.want(204, "", "GET /v1.0/configuration/conf?key=zz", "")
	h.want(400, "configuration store nope not found", "GET /v1.0/configuration/nope", "")
	h.want(400, "there are 1001 keys", "GET /v1.0/configuration/conf?"+strings.Repeat("key=a&", 1001), "")
	h.want(405, "", "POST /v1.0/configuration/conf", "")
	h.want(404, "ERR_DIRECT_INVOKE", "GET /v1.0/configuration/conf/what", "")
	c = h.grpc()
	old := c.GetConfigurationAlpha1
	for _, get := range []func(context.Context, *rtv1.GetConfigurationRequest, ...grpc.CallOption) (*rtv1.GetConfigurationResponse, error){c.GetConfiguration, old} {
		got, err := get(t.Context(), &rtv1.GetConfigurationRequest{StoreName: "conf", Keys: []string{"a", "b"}})
		if err != nil || got.GetItems()["a"].GetVersion() != "v1" || got.GetItems()["b"].GetMetadata()["m"] != "x" {
			t.Errorf("%v %v", got, err)
		}
	}
	s.fails = errors.New("the password is hunter2")
	h.want(500, "failed to get [a] from Configuration store conf: internal error", "GET /v1.0/configuration/conf?key=a", "")
	_, err = c.GetConfiguration(t.Context(), &rtv1.GetConfigurationRequest{StoreName: "conf"})
	c.fails(err, codes.Internal, "ERR_CONFIGURATION_GET", "failed to get [] from Configuration store conf")
	stream, err := c.SubscribeConfiguration(t.Context(), &rtv1.SubscribeConfigurationRequest{StoreName: "conf", Keys: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	c.fails(err, codes.InvalidArgument, "ERR_CONFIGURATION_SUBSCRIBE", "failed to subscribe [a] from Configuration store conf")
}

// told is one request to the application.
type told struct{ path, body string }

func TestAnApplicationIsToldOfChangesUntilItUnsubscribes(t *testing.T) {
	h := open(t)
	s := h.configured()
	h.want(500, "ERR_APP_CHANNEL_NIL", "GET /v1.0/configuration/conf/subscribe", "")
	posts, busy := make(chan told, 10), true
	h.opt.Clock = at(fakeNow)
	h.opt.Tell = func(r *http.Request, method, path string, body []byte) error {
		if r.Header.Get("dapr-caller-app-id") != "shop" || method != "POST" {
			return fmt.Errorf("%s for %v", method, r.Header)
		}
		if busy { // the first time
			busy = false
			return errors.New("not yet")
		}
		posts <- told{path, string(body)}
		return nil
	}
	d := New(h.opt)
	ask := func(path string) (int, string) {
		r := httptest.NewRequest("GET", "http://localhost"+path, nil)
		r.Header.Set("dapr-caller-app-id", "shop")
		w := httptest.NewRecorder()
		d.ServeHTTP(w, r)
		body, _ := io.ReadAll(w.Body)
		return w.Code, string(body)
	}
	status, body := ask("/v1.0/configuration/conf/subscribe?key=a%2Fb")
	var sub struct{ ID string }
	if err := json.Unmarshal([]byte(body), &sub); err != nil || status != 200 || sub.ID == "" {
		t.Fatalf("%d %s", status, body)
	}
	s.changes <- map[string]component.ConfigItem{"a/b": {Value: "9", Version: "v2"}}
	if got := <-posts; got.path != "/configuration/conf/a%2Fb" || got.body != `{"id":"`+sub.ID+`","items":{"a/b":{"value":"9","version":"v2"}}}` {
		t.Errorf("%+v", got)
	}
	if status, body := ask("/v1.0/configuration/conf/" + sub.ID + "/unsubscribe"); status != 200 || body != `{"ok":true}` {
		t.Errorf("%d %s", status, body)
	}
	s.open.Wait()
	if status, body := ask("/v1.0-alpha1/configuration/conf/" + sub.ID + "/unsubscribe"); status != 500 || !strings.Contains(body, "subscription does not exist") {
		t.Errorf("%d %s", status, body)
	}
	if status, _ := ask("/v1.0/configuration/conf/subscribe"); status != 200 {
		t.Error(status)
	}
	d.Close() // ends the second, and waits for it
	s.open.Wait()
	if status, body := ask("/v1.0/configuration/conf/subscribe"); status != 503 || !strings.Contains(body, "stopping") {
		t.Errorf("%d %s", status, body)
	}
	s.fails = &quipu.Error{Code: quipu.CodeUsage, Text: "a wrong key"}
	h.want(400, "failed to subscribe [] from Configuration store conf: a wrong key", "GET /v1.0/configuration/conf/subscribe", "")
}

// at is a clock whose waits are over at once.
type at time.Time

var fakeNow = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func (a at) Now() time.Time { return time.Time(a) }
func (a at) After(time.Duration) <-chan time.Time {
	c := make(chan time.Time, 1)
	c <- time.Time(a)
	return c
}

func TestConfigurationIsStreamedUntilItsIDIsUnsubscribed(t *testing.T) {
	h := open(t)
	s := h.configured()
	c := h.grpc()
	stream, err := c.SubscribeConfiguration(t.Context(), &rtv1.SubscribeConfigurationRequest{StoreName: "conf"})
	if err != nil {
		t.Fatal(err)
	}
	first, err := stream.Recv()
	if err != nil || first.GetId() == "" || len(first.GetItems()) != 0 {
		t.Fatalf("%v %v", first, err)
	}
	s.changes <- map[string]component.ConfigItem{"a": {Value: "9"}, "gone": {}}
	if got, err := stream.Recv(); err != nil || got.GetId() != first.GetId() || got.GetItems()["a"].GetValue() != "9" || got.GetItems()["gone"] == nil {
		t.Errorf("%v %v", got, err)
	}
	if got, err := c.UnsubscribeConfiguration(t.Context(), &rtv1.UnsubscribeConfigurationRequest{StoreName: "conf", Id: first.GetId()}); err != nil || !got.GetOk() {
		t.Errorf("%v %v", got, err)
	}
	if _, err := stream.Recv(); err != io.EOF {
		t.Errorf("the stream did not end: %v", err)
	}
	got, err := c.UnsubscribeConfigurationAlpha1(t.Context(), &rtv1.UnsubscribeConfigurationRequest{StoreName: "conf", Id: first.GetId()})
	if err != nil || got.GetOk() || !strings.Contains(got.GetMessage(), "subscription does not exist") {
		t.Errorf("%v %v", got, err)
	}
	older, err := c.SubscribeConfigurationAlpha1(t.Context(), &rtv1.SubscribeConfigurationRequest{StoreName: "conf"})
	if err != nil {
		t.Fatal(err)
	}
	if first, err := older.Recv(); err != nil || first.GetId() == "" {
		t.Errorf("%v %v", first, err)
	}
}

// vault is a secret store: secrets with several values.
type vault struct{ all map[string]map[string]string }

func (v vault) Secret(_ context.Context, name string, metadata map[string]string) (map[string]string, error) {
	if metadata["version"] == "bad" {
		return nil, errors.New("the root token is hunter2")
	}
	return v.all[name], nil
}

func (v vault) Secrets(context.Context, map[string]string) (map[string]map[string]string, error) {
	return v.all, nil
}

func TestSecretsComeFromTheirStoreAsFarAsTheirScopesAllow(t *testing.T) {
	h := open(t)
	h.alone()
	h.want(500, "ERR_SECRET_STORES_NOT_CONFIGURED", "GET /v1.0/secrets/vault/db", "")
	h.with(loaded("vault", "secretstores.other", vault{map[string]map[string]string{"db": {"user": "u", "password": "p"}, "root": {"token": "t"}}}))
	h.opt.SecretAllowed = func(r *http.Request, store, name string) bool {
		return store != "vault" || name != "root" && OutsideAppID(r) != "nosy"
	}
	if head := h.want(200, `{"password":"p","user":"u"}`, "GET /v1.0/secrets/vault/db", ""); head.Get("Cache-Control") != "no-store" {
		t.Errorf("%v", head)
	}
	h.want(200, `{"db":{"password":"p","user":"u"}}`, "GET /v1.0/secrets/vault/bulk", "")
	h.want(200, `{}`, "GET /v1.0/secrets/vault/bulk", "", "dapr-caller-app-id: nosy")
	h.want(204, "", "GET /v1.0/secrets/vault/none", "")
	h.want(403, `access denied by policy to get \"root\" from \"vault\"`, "GET /v1.0/secrets/vault/root", "")
	h.want(403, "ERR_PERMISSION_DENIED", "GET /v1.0/secrets/vault/none", "", "dapr-caller-app-id: nosy")
	h.want(401, "failed finding secret store with key statestore", "GET /v1.0/secrets/statestore/db", "")
	if status, body, _ := h.ask("GET /v1.0/secrets/vault/db?metadata.version=bad", ""); status != 500 || strings.Contains(body, "hunter2") || !strings.Contains(body, "failed getting secret with key db from secret store vault: ") {
		t.Errorf("%d %s", status, body)
	}
	c := h.grpc()
	if got, err := c.GetSecret(t.Context(), &rtv1.GetSecretRequest{StoreName: "vault", Key: "db"}); err != nil || got.GetData()["password"] != "p" {
		t.Errorf("%v %v", got, err)
	}
	_, err := c.GetSecret(t.Context(), &rtv1.GetSecretRequest{StoreName: "vault", Key: "root"})
	c.fails(err, codes.PermissionDenied, "", `access denied by policy to get "root" from "vault"`)
	if got, err := c.GetBulkSecret(t.Context(), &rtv1.GetBulkSecretRequest{StoreName: "vault"}); err != nil || len(got.GetData()) != 1 || got.GetData()["db"].GetSecrets()["user"] != "u" {
		t.Errorf("%v %v", got, err)
	}
}
