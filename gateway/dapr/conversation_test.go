package dapr

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/quipu-run/quipu/internal/component"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// parrot says what it was told, and keeps the last request.
type parrot struct {
	seen  component.ConversationRequest
	fails error
}

func (p *parrot) Converse(_ context.Context, r component.ConversationRequest) (component.ConversationReply, error) {
	p.seen = r
	var said []string
	for _, m := range r.Messages {
		said = append(said, m.Content)
	}
	m := component.ConversationMessage{Role: "assistant", Content: strings.Join(said, "\n")}
	for i, t := range r.Tools {
		m.ToolCalls = append(m.ToolCalls, component.ConversationToolCall{ID: fmt.Sprint(i), Name: t.Name, Arguments: "{}"})
	}
	return component.ConversationReply{Model: "parrot", Usage: &component.ConversationUsage{Prompt: 1, Completion: 2, Total: 3},
		Choices: []component.ConversationChoice{{FinishReason: "stop", Message: m}}}, p.fails
}

const (
	converse1 = "POST /v1.0-alpha1/conversation/echo/converse"
	converse2 = "POST /v1.0-alpha2/conversation/echo/converse"
)

func TestAConversationOfTheFirstVersion(t *testing.T) {
	h, p := open(t), &parrot{}
	h.with(loaded("echo", "conversation.echo", p))
	h.want(200, `"result":"hi\nmail <EMAIL_ADDRESS>"`, converse1, `{"inputs":[{"content":"hi","role":"system"},{"content":"mail a@b.example","scrubPII":true,"role":"ai"}],"temperature":0.5,"contextID":"c1"}`)
	if m := p.seen.Messages; len(m) != 2 || m[0].Role != "system" || m[1].Role != "assistant" || *p.seen.Temperature != 0.5 || p.seen.ContextID != "c1" {
		t.Errorf("%+v", p.seen)
	}
	h.want(200, `"result":"from <IP>"`, converse1, `{"inputs":[{"content":"from 10.0.0.1"}],"scrubPII":true}`)
	if p.seen.Messages[0].Content != "from 10.0.0.1" || p.seen.Messages[0].Role != "user" {
		t.Errorf("%+v", p.seen)
	}
	c := h.grpc()
	converse := c.ConverseAlpha1
	number, err := anypb.New(wrapperspb.Int64(5))
	if err != nil {
		t.Fatal(err)
	}
	//lint:ignore SA1019 older clients call it
	ask := &rtv1.ConversationRequest{Name: "echo", ContextID: new(string), Parameters: map[string]*anypb.Any{"n": number},
		//lint:ignore SA1019 older clients call it
		Inputs: []*rtv1.ConversationInput{{Content: "x"}}}
	got, err := converse(t.Context(), ask)
	if err != nil || got.GetOutputs()[0].GetResult() != "x" || got.GetOutputs()[0].GetParameters()["n"] == nil || p.seen.Parameters["n"] != int64(5) {
		t.Errorf("%v %v %v", got, err, p.seen)
	}
}

func TestAConversationHasRolesAndTools(t *testing.T) {
	h, p := open(t), &parrot{}
	h.with(loaded("echo", "conversation.echo", p))
	content := func(text string) []*rtv1.ConversationMessageContent {
		return []*rtv1.ConversationMessageContent{{Text: text}}
	}
	name, id, yes := "ada", "t1", true
	schema, err := structpb.NewStruct(map[string]any{"type": "object"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := h.grpc().ConverseAlpha2(t.Context(), &rtv1.ConversationRequestAlpha2{Name: "echo", ContextId: &id, ScrubPii: &yes, ResponseFormat: schema, PromptCacheRetention: durationpb.New(time.Minute),
		Tools: []*rtv1.ConversationTools{{ToolTypes: &rtv1.ConversationTools_Function{Function: &rtv1.ConversationToolsFunction{Name: "look", Description: &name, Parameters: schema}}}},
		Inputs: []*rtv1.ConversationInputAlpha2{{ScrubPii: &yes, Messages: []*rtv1.ConversationMessage{
			{MessageTypes: &rtv1.ConversationMessage_OfDeveloper{OfDeveloper: &rtv1.ConversationMessageOfDeveloper{Content: content("d a@b.example")}}},
			{MessageTypes: &rtv1.ConversationMessage_OfSystem{OfSystem: &rtv1.ConversationMessageOfSystem{Content: content("s")}}},
			{MessageTypes: &rtv1.ConversationMessage_OfUser{OfUser: &rtv1.ConversationMessageOfUser{Name: &name, Content: append(content("u"), content("v")...)}}},
			{MessageTypes: &rtv1.ConversationMessage_OfAssistant{OfAssistant: &rtv1.ConversationMessageOfAssistant{Content: content("a"), ToolCalls: []*rtv1.ConversationToolCalls{
				{Id: &id, ToolTypes: &rtv1.ConversationToolCalls_Function{Function: &rtv1.ConversationToolCallsOfFunction{Name: "look", Arguments: `{"x":1}`}}}}}}},
			{MessageTypes: &rtv1.ConversationMessage_OfTool{OfTool: &rtv1.ConversationMessageOfTool{ToolId: &id, Name: "look", Content: content("found")}}},
		}}}})
	if err != nil {
		t.Fatal(err)
	}
	want := []component.ConversationMessage{
		{Role: "developer", Content: "d <EMAIL_ADDRESS>"}, {Role: "system", Content: "s"}, {Role: "user", Name: "ada", Content: "u\nv"},
		{Role: "assistant", Content: "a", ToolCalls: []component.ConversationToolCall{{ID: "t1", Name: "look", Arguments: `{"x":1}`}}},
		{Role: "tool", Name: "look", ToolCallID: "t1", Content: "found"}}
	if s := p.seen; !reflect.DeepEqual(s.Messages, want) || s.ToolChoice != "auto" || s.Tools[0].Parameters["type"] != "object" || s.CacheTTL != time.Minute || string(s.Format) != `{"type":"object"}` {
		t.Errorf("%+v", s)
	}
	out := got.GetOutputs()[0]
	if got.GetContextId() != "t1" || out.GetModel() != "parrot" || out.GetUsage().GetTotalTokens() != 3 || out.GetChoices()[0].GetFinishReason() != "stop" ||
		out.GetChoices()[0].GetMessage().GetToolCalls()[0].GetFunction().GetName() != "look" || out.GetChoices()[0].GetMessage().GetToolCalls()[0].GetId() != "0" {
		t.Errorf("%v", got)
	}
	h.want(200, `"content":"hi"`, converse2, `{"inputs":[{"messages":[{"ofUser":{"content":[{"text":"hi"}]}}]}]}`)
}

func TestAConversationThatCannotBeOneIsRefused(t *testing.T) {
	h, p := open(t), &parrot{}
	h.with(loaded("echo", "conversation.echo", p))
	const hi = `"inputs":[{"messages":[{"ofUser":{"content":[{"text":"hi"}]}}]}]`
	for _, bad := range []struct{ says, request, body string }{
		{"failed finding conversation component nope", "POST /v1.0-alpha1/conversation/nope/converse", `{}`},
		{"ERR_CONVERSATION_NOT_FOUND", "POST /v1.0-alpha2/conversation/nope/converse", `{` + hi + `}`},
		{"failed conversing with component echo: missing inputs in request", converse1, `{}`},
		{"ERR_CONVERSATION_MISSING_INPUTS", converse2, `{}`},
		{"ERR_CONVERSATION_INVALID_PARMS", converse2, `{"inputs":[{"messages":[{}]}]}`},
		{"message type cannot be nil", converse2, `{"inputs":[{"messages":[{}]}]}`},
		{"tool types cannot be nil", converse2, `{"inputs":[{"messages":[{"ofAssistant":{"toolCalls":[{"id":"1"}]}}]}]}`},
		{"tool choice must be 'auto'", converse2, `{"toolChoice":"required",` + hi + `}`},
		{"tool choice selected was not found", converse2, `{"toolChoice":"other",` + hi + `}`},
		{"ERR_MALFORMED_REQUEST", converse2, `{"inputs":1}`},
		{"which cannot be one", converse2, `{"parameters":{"p":{"@type":"type.googleapis.com/google.protobuf.Duration","value":"1s"}},` + hi + `}`},
	} {
		h.want(400, bad.says, bad.request, bad.body)
	}
	h.want(405, "", "GET /v1.0-alpha2/conversation/echo/converse", "")
	p.fails = errors.New("the key is hunter2")
	status, body, _ := h.ask(converse2, `{`+hi+`}`)
	if status != 500 || !strings.Contains(body, "ERR_CONVERSATION_INVOKE") || strings.Contains(body, "hunter2") {
		t.Errorf("%d %s", status, body)
	}
	c := h.grpc()
	_, err := c.ConverseAlpha2(t.Context(), &rtv1.ConversationRequestAlpha2{Name: "nope"})
	c.fails(err, codes.InvalidArgument, "", "failed finding conversation component nope")
}
