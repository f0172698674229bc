package conversation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quipu-run/quipu/internal/component"
	"github.com/quipu-run/quipu/xtest"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// service is one that speaks chat completions. It keeps what it was asked.
type service struct {
	*httptest.Server
	answer func(w http.ResponseWriter, r *http.Request)

	mu    sync.Mutex
	asked []map[string]any
	heads []*http.Request
}

func serve(t *testing.T, answer func(http.ResponseWriter, *http.Request)) *service {
	s := &service{answer: answer}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		var body map[string]any
		if err == nil {
			err = json.Unmarshal(text, &body)
		}
		if err != nil {
			t.Error(err)
		}
		s.mu.Lock()
		s.asked, s.heads = append(s.asked, body), append(s.heads, r)
		s.mu.Unlock()
		s.answer(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *service) last() (map[string]any, *http.Request, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[len(s.asked)-1], s.heads[len(s.heads)-1], len(s.asked)
}

func saying(text string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) }
}

const hello = `{"model":"m-1","choices":[{"finish_reason":"stop","message":{"role":"assistant","content":"hello"}}],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}`

func open(t *testing.T, clock *xtest.Clock, kind string, m component.Metadata) component.Conversation {
	t.Helper()
	is, err := Factories()[kind](context.Background(), component.Host{Env: map[string]string{"OPENAI_MODEL": "from-env"}, Clock: clock}, component.Spec{Type: kind, Metadata: m})
	if err != nil {
		t.Fatal(err)
	}
	return is.(component.Conversation)
}

func user(text string) component.ConversationRequest {
	return component.ConversationRequest{Messages: []component.ConversationMessage{{Role: "user", Content: text}}}
}

func TestATurnGoesToTheModelWithItsKeyAndComesBackWithItsUsage(t *testing.T) {
	s := serve(t, saying(hello))
	c := open(t, xtest.NewClock(start), "conversation.openai", component.Metadata{"endpoint": s.URL + "/v1/", "key": "k3y", "model": "m"})
	r := user("hi")
	r.ContextID, r.Temperature, r.Metadata = "ctx", new(float64), map[string]string{"a": "b"}
	reply, err := c.Converse(context.Background(), r)
	want := component.ConversationReply{ContextID: "ctx", Model: "m-1", Usage: &component.ConversationUsage{Prompt: 3, Completion: 1, Total: 4},
		Choices: []component.ConversationChoice{{FinishReason: "stop", Message: component.ConversationMessage{Role: "assistant", Content: "hello"}}}}
	if err != nil || !reflect.DeepEqual(reply, want) {
		t.Errorf("%+v, %v", reply, err)
	}
	body, head, _ := s.last()
	if head.URL.Path != "/v1/chat/completions" || head.Method != "POST" || head.Header.Get("Authorization") != "Bearer k3y" {
		t.Errorf("asked %s %s with %v", head.Method, head.URL, head.Header)
	}
	wantBody := map[string]any{"model": "m", "temperature": 0.0, "metadata": map[string]any{"a": "b"}, "messages": []any{map[string]any{"role": "user", "content": "hi"}}}
	if !reflect.DeepEqual(body, wantBody) {
		t.Errorf("asked %v", body)
	}
}

func TestToolsAreOfferedCalledAndAnswered(t *testing.T) {
	s := serve(t, saying(`{"choices":[{"finish_reason":"tool_calls","message":{"content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"add","arguments":"{\"a\":1}"}}]}}]}`))
	c := open(t, xtest.NewClock(start), "conversation.ollama", component.Metadata{"endpoint": s.URL})
	schema := map[string]any{"type": "object", "properties": map[string]any{"a": map[string]any{"type": "number"}}}
	call := component.ConversationToolCall{ID: "c0", Name: "add", Arguments: "{}"}
	r := component.ConversationRequest{
		Messages: []component.ConversationMessage{{Role: "user", Content: "1+1"}, {Role: "assistant", ToolCalls: []component.ConversationToolCall{call}}, {Role: "tool", ToolCallID: "c0", Name: "add", Content: "2"}},
		Tools:    []component.ConversationTool{{Name: "add", Description: "adds", Parameters: schema}}, ToolChoice: "add",
		Format: json.RawMessage(`{"title":"My sum!","type":"object"}`), CacheTTL: 2 * time.Hour, Parameters: map[string]any{"max_tokens": 5.0, "stream": true, "model": "other"},
	}
	reply, err := c.Converse(context.Background(), r)
	if err != nil || reply.Model != "llama3.2:latest" || reply.Usage != nil || reply.Choices[0].FinishReason != "tool_calls" ||
		!reflect.DeepEqual(reply.Choices[0].Message.ToolCalls, []component.ConversationToolCall{{ID: "c1", Name: "add", Arguments: `{"a":1}`}}) {
		t.Errorf("%+v, %v", reply, err)
	}
	body, head, _ := s.last()
	if head.Header.Get("Authorization") != "" {
		t.Error("there is no key, but one was sent")
	}
	var want map[string]any
	if err := json.Unmarshal([]byte(`{"model":"llama3.2:latest","max_tokens":5,"prompt_cache_retention":"24h","messages":[{"role":"user","content":"1+1"},
		{"role":"assistant","content":null,"tool_calls":[{"id":"c0","type":"function","function":{"name":"add","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c0","content":"2"}],
		"tools":[{"type":"function","function":{"name":"add","description":"adds","parameters":{"type":"object","properties":{"a":{"type":"number"}}}}}],
		"tool_choice":{"type":"function","function":{"name":"add"}},"response_format":{"type":"json_schema","json_schema":{"name":"My_sum_","strict":true,"schema":{"title":"My sum!","type":"object"}}}}`), &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(body, want) {
		t.Errorf("asked %v\nwant  %v", body, want)
	}
}

func TestAModelThatMustCallAToolAndSaysNothingIsAnError(t *testing.T) {
	s := serve(t, saying(`{"choices":[{"message":{"content":""}}]}`))
	c := open(t, xtest.NewClock(start), "conversation.ollama", component.Metadata{"endpoint": s.URL, "cacheTTL": "1m"})
	r := user("x")
	r.Tools = []component.ConversationTool{{Name: "add"}}
	if reply, err := c.Converse(context.Background(), r); err != nil || reply.Choices[0].FinishReason != "unknown" {
		t.Errorf("where none is required: %+v, %v", reply, err)
	}
	r.ToolChoice = "required"
	if _, err := c.Converse(context.Background(), r); err == nil {
		t.Error("nothing was taken for an answer")
	}
}

func TestTheSameQuestionIsAskedOnceUntilItsAnswerIsTooOld(t *testing.T) {
	s := serve(t, saying(hello))
	clock := xtest.NewClock(start)
	c := open(t, clock, "conversation.openai", component.Metadata{"endpoint": s.URL, "key": "k", "responseCacheTTL": "1m"})
	ask := func(text string, want int) {
		t.Helper()
		if reply, err := c.Converse(context.Background(), user(text)); err != nil || reply.Choices[0].Message.Content != "hello" {
			t.Errorf("%+v, %v", reply, err)
		}
		if _, _, n := s.last(); n != want {
			t.Errorf("asked %d times, want %d", n, want)
		}
	}
	ask("a", 1)
	ask("a", 1)
	ask("b", 2)
	clock.Move(time.Minute)
	ask("a", 3)
}

func TestTheCacheIsBounded(t *testing.T) {
	c := cache{keep: time.Hour}
	for i := range cacheEntriesMax + 5 {
		c.put(fmt.Append(nil, i), []byte("x"), start)
	}
	if _, ok := c.get(fmt.Append(nil, 4), start); ok || c.order.Len() != cacheEntriesMax || len(c.byKey) != cacheEntriesMax {
		t.Errorf("%d are kept", c.order.Len())
	}
	big := make([]byte, cacheBytesMax/2)
	for i := range 4 {
		c.put(fmt.Append(nil, "big", i), big, start)
		c.put(fmt.Append(nil, "big", i), big, start)
	}
	if c.bytes > cacheBytesMax || c.order.Len() != 2 {
		t.Errorf("%d bytes in %d are kept", c.bytes, c.order.Len())
	}
	c.put([]byte("over"), make([]byte, cacheBytesMax+1), start)
	if _, ok := c.get([]byte("over"), start); ok {
		t.Error("a reply over the limit is kept")
	}
	c.clear()
	if c.bytes != 0 || c.order.Len() != 0 {
		t.Error("something is left")
	}
}

func TestWhatAModelComplainsAboutIsToldWithoutTheKey(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"error":{"message":"no such key: hunter2`+strings.Repeat("!", 1000)+`"}}`)
	})
	c := open(t, xtest.NewClock(start), "conversation.openai", component.Metadata{"endpoint": s.URL, "key": "hunter2"})
	_, err := c.Converse(context.Background(), user("x"))
	if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "status 401: no such key: ***!") || len(err.Error()) > errorTextMax+100 {
		t.Errorf("the error is %v", err)
	}
	for _, text := range []string{"", "[]", `{"choices":[]}`, `{"choices":[{"message":{"content":5}}]}`} {
		s.answer = saying(text)
		if _, err := c.Converse(context.Background(), user("x")); err == nil {
			t.Errorf("%q was taken for a reply", text)
		}
	}
}

func TestAKeyDoesNotFollowARedirection(t *testing.T) {
	elsewhere := serve(t, saying(hello))
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	})
	c := open(t, xtest.NewClock(start), "conversation.openai", component.Metadata{"endpoint": s.URL, "key": "k"})
	if _, err := c.Converse(context.Background(), user("x")); err == nil || len(elsewhere.asked) != 0 {
		t.Errorf("asked elsewhere %d times, %v", len(elsewhere.asked), err)
	}
}

func TestALateOrEndlessReplyIsAnError(t *testing.T) {
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	c := open(t, xtest.NewClock(start), "conversation.openai", component.Metadata{"endpoint": s.URL, "key": "k", "timeout": "5ms"})
	if _, err := c.Converse(context.Background(), user("x")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a late reply: %v", err)
	}
	endless := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		for chunk := make([]byte, 1<<20); ; {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	c = open(t, xtest.NewClock(start), "conversation.openai", component.Metadata{"endpoint": endless.URL, "key": "k"})
	if _, err := c.Converse(context.Background(), user("x")); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("an endless reply: %v", err)
	}
	if _, err := c.Converse(context.Background(), user(strings.Repeat("x", requestBytesMax))); err == nil || !strings.Contains(err.Error(), "the conversation has more") {
		t.Errorf("a long question: %v", err)
	}
}

func TestAzureNamesTheModelInThePath(t *testing.T) {
	s := serve(t, saying(hello))
	m := component.Metadata{"endpoint": s.URL, "key": "k", "model": "gpt/x", "apiType": "Azure", "apiVersion": "2025-01-01"}
	if _, err := open(t, xtest.NewClock(start), "conversation.openai", m).Converse(context.Background(), user("x")); err != nil {
		t.Fatal(err)
	}
	_, head, _ := s.last()
	if head.URL.String() != "/openai/deployments/gpt%2Fx/chat/completions?api-version=2025-01-01" || head.Header.Get("api-key") != "k" || head.Header.Get("Authorization") != "" {
		t.Errorf("asked %s with %v", head.URL, head.Header)
	}
}

func TestSettingsThatCannotBeAreRefused(t *testing.T) {
	for _, m := range []component.Metadata{{}, {"key": "k", "cacheTTL": "x"}, {"key": "k", "timeout": "0"}, {"key": "k", "timeout": "x"}, {"key": "k", "endpoint": "ftp://x"}, {"key": "k", "apiType": "azure"}} {
		if _, err := Factories()["conversation.openai"](context.Background(), component.Host{}, component.Spec{Type: "conversation.openai", Metadata: m}); err == nil {
			t.Errorf("%v was accepted", m)
		}
	}
	if m := open(t, xtest.NewClock(start), "conversation.openai", component.Metadata{"key": "k"}).(*model); m.name != "from-env" || m.url != "https://api.openai.com/v1/chat/completions" {
		t.Errorf("the model is %s at %s", m.name, m.url)
	}
}

func TestEchoSaysWhatItWasTold(t *testing.T) {
	e := open(t, nil, "conversation.echo", nil)
	if reply, err := e.Converse(context.Background(), component.ConversationRequest{ContextID: "c"}); err != nil || reply.ContextID != "c" || len(reply.Choices) != 0 {
		t.Errorf("to nothing: %+v, %v", reply, err)
	}
	r := user("hi there")
	r.Messages = append(r.Messages, component.ConversationMessage{Role: "tool", ToolCallID: "7", Name: "add", Content: "2"})
	reply, err := e.Converse(context.Background(), r)
	if err != nil || reply.Choices[0].FinishReason != "stop" || reply.Choices[0].Message.Content != "hi there\nTool Response for tool ID '7' with name 'add': 2" || reply.Usage.Total != 2*reply.Usage.Prompt {
		t.Errorf("%+v, %v", reply, err)
	}
	r.Tools = []component.ConversationTool{{Name: "add", Parameters: map[string]any{"properties": map[string]any{"b": 1, "a": 1}}}}
	reply, err = e.Converse(context.Background(), r)
	if want := []component.ConversationToolCall{{ID: "0", Name: "add", Arguments: "a,b"}}; err != nil || reply.Choices[0].FinishReason != "tool_calls" || !reflect.DeepEqual(reply.Choices[0].Message.ToolCalls, want) {
		t.Errorf("%+v, %v", reply, err)
	}
	r.Tools[0].Parameters["properties"] = "none"
	if _, err := e.Converse(context.Background(), r); err == nil {
		t.Error("properties that are text were accepted")
	}
}
