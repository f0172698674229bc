package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/dapr/components-contrib/conversation"
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/tmc/langchaingo/llms"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
)

// talk is a conversation. The messages of both protocols are the same.
type talk struct {
	component
	overHTTP bool
}

func (k *talk) Init(_ context.Context, m conversation.Metadata) error { return k.declare(m.Properties) }

func (k *talk) call(ctx context.Context, in *rtv1.ConversationRequestAlpha2) (*rtv1.ConversationResponseAlpha2, error) {
	if !k.overHTTP {
		return k.ConverseAlpha2(ctx, in)
	}
	body, err := protojson.Marshal(in)
	if err != nil {
		return nil, err
	}
	_, got, err := k.do(ctx, http.MethodPost, "/v1.0-alpha2/conversation/"+k.name+"/converse", nil, body)
	if err != nil {
		return nil, err
	}
	out := &rtv1.ConversationResponseAlpha2{}
	return out, protojson.Unmarshal(got, out)
}

func (k *talk) Converse(ctx context.Context, r *conversation.Request) (*conversation.Response, error) {
	in := &rtv1.ConversationRequestAlpha2{Name: k.name, Metadata: r.Metadata, Temperature: &r.Temperature, ToolChoice: r.ToolChoice}
	input := &rtv1.ConversationInputAlpha2{}
	for _, m := range *r.Message {
		for _, part := range m.Parts {
			one, err := messageFrom(m.Role, part)
			if err != nil {
				return nil, err
			}
			input.Messages = append(input.Messages, one)
		}
	}
	in.Inputs = append(in.Inputs, input)
	if r.Tools != nil {
		for _, tool := range *r.Tools {
			one, err := toolFrom(tool)
			if err != nil {
				return nil, err
			}
			in.Tools = append(in.Tools, one)
		}
	}
	got, err := k.call(ctx, in)
	if err != nil {
		return nil, err
	}
	return responseOf(got), nil
}

// messageFrom is a part of a message as one of Dapr's API.
func messageFrom(role llms.ChatMessageType, part llms.ContentPart) (*rtv1.ConversationMessage, error) {
	switch p := part.(type) {
	case llms.ToolCall:
		call := &rtv1.ConversationToolCalls{Id: &p.ID, ToolTypes: &rtv1.ConversationToolCalls_Function{
			Function: &rtv1.ConversationToolCallsOfFunction{Name: p.FunctionCall.Name, Arguments: p.FunctionCall.Arguments}}}
		return &rtv1.ConversationMessage{MessageTypes: &rtv1.ConversationMessage_OfAssistant{
			OfAssistant: &rtv1.ConversationMessageOfAssistant{ToolCalls: []*rtv1.ConversationToolCalls{call}}}}, nil
	case llms.ToolCallResponse:
		return &rtv1.ConversationMessage{MessageTypes: &rtv1.ConversationMessage_OfTool{
			OfTool: &rtv1.ConversationMessageOfTool{ToolId: &p.ToolCallID, Name: p.Name, Content: said(p.Content)}}}, nil
	case llms.TextContent:
		switch role {
		case llms.ChatMessageTypeHuman:
			return &rtv1.ConversationMessage{MessageTypes: &rtv1.ConversationMessage_OfUser{OfUser: &rtv1.ConversationMessageOfUser{Content: said(p.Text)}}}, nil
		case llms.ChatMessageTypeSystem:
			return &rtv1.ConversationMessage{MessageTypes: &rtv1.ConversationMessage_OfSystem{OfSystem: &rtv1.ConversationMessageOfSystem{Content: said(p.Text)}}}, nil
		case llms.ChatMessageTypeAI:
			return &rtv1.ConversationMessage{MessageTypes: &rtv1.ConversationMessage_OfAssistant{OfAssistant: &rtv1.ConversationMessageOfAssistant{Content: said(p.Text)}}}, nil
		}
	}
	return nil, fmt.Errorf("Dapr's API has no %T of %s", part, role)
}

func said(text string) []*rtv1.ConversationMessageContent {
	return []*rtv1.ConversationMessageContent{{Text: text}}
}

func toolFrom(t llms.Tool) (*rtv1.ConversationTools, error) {
	parameters, err := plain(t.Function.Parameters)
	if err != nil {
		return nil, err
	}
	return &rtv1.ConversationTools{ToolTypes: &rtv1.ConversationTools_Function{
		Function: &rtv1.ConversationToolsFunction{Name: t.Function.Name, Description: &t.Function.Description, Parameters: parameters}}}, nil
}

// plain is what JSON makes of parameters, which have lists of texts in them.
func plain(parameters any) (*structpb.Struct, error) {
	text, err := json.Marshal(parameters)
	if err != nil {
		return nil, err
	}
	out := &structpb.Struct{}
	return out, protojson.Unmarshal(text, out)
}

func responseOf(got *rtv1.ConversationResponseAlpha2) *conversation.Response {
	out := &conversation.Response{ConversationContext: got.GetContextId()}
	for _, one := range got.GetOutputs() {
		var result conversation.Result
		for _, c := range one.GetChoices() {
			choice := conversation.Choice{FinishReason: c.GetFinishReason(), Index: c.GetIndex(), Message: conversation.Message{Content: c.GetMessage().GetContent()}}
			if calls := callsOf(c.GetMessage().GetToolCalls()); len(calls) > 0 {
				choice.Message.ToolCallRequest = &calls
			}
			result.StopReason = choice.FinishReason
			result.Choices = append(result.Choices, choice)
		}
		out.Outputs, out.Model = append(out.Outputs, result), one.GetModel()
		if u := one.GetUsage(); u != nil {
			out.Usage = &conversation.Usage{CompletionTokens: u.GetCompletionTokens(), PromptTokens: u.GetPromptTokens(), TotalTokens: u.GetTotalTokens()}
		}
	}
	return out
}

func callsOf(list []*rtv1.ConversationToolCalls) (calls []llms.ToolCall) {
	for _, one := range list {
		f := one.GetFunction()
		calls = append(calls, llms.ToolCall{ID: one.GetId(), Type: "function", FunctionCall: &llms.FunctionCall{Name: f.GetName(), Arguments: f.GetArguments()}})
	}
	return calls
}
