package dapr

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/component"
	"github.com/quipu-run/quipu/internal/scrub"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const tagConverse = "ERR_CONVERSATION_INVOKE"

// conversationOf finds a component to talk to.
func (d *Door) conversationOf(r *http.Request, name string, inputs int) (component.Conversation, error) {
	set, err := d.set(r)
	if err != nil {
		return nil, d.problem(r, tagConverse, "", err)
	}
	c, ok := component.Of[component.Conversation](set, name)
	switch {
	case !ok:
		return nil, &problem{status: http.StatusBadRequest, tag: "ERR_CONVERSATION_NOT_FOUND", message: "failed finding conversation component " + name}
	case inputs == 0:
		return nil, &problem{status: http.StatusBadRequest, tag: "ERR_CONVERSATION_MISSING_INPUTS", message: fmt.Sprintf("failed conversing with component %s: missing inputs in request", name)}
	}
	return c, nil
}

// converse asks a component. What it says is for the caller, so it has no details over gRPC.
func (d *Door) converse(r *http.Request, name string, c component.Conversation, ask component.ConversationRequest) (component.ConversationReply, error) {
	reply, err := c.Converse(r.Context(), ask)
	if err != nil {
		p := d.problem(r, tagConverse, fmt.Sprintf("failed conversing with component %s: ", name), err)
		p.reason = ""
		if quipu.CodeOf(err) == quipu.CodeOutside {
			p.status, p.code = http.StatusInternalServerError, codes.Internal // as in Dapr
		}
		return reply, p
	}
	return reply, nil
}

func badConversation(name, why string) error {
	return &problem{status: http.StatusBadRequest, tag: "ERR_CONVERSATION_INVALID_PARMS", message: fmt.Sprintf("failed conversing with component %s: invalid params: %s", name, why)}
}

// scrubbed is a text as somebody may see it.
func scrubbed(text string, scrubIt bool) string {
	if scrubIt {
		return scrub.Text(text)
	}
	return text
}

// parametersOf are values of well-known types.
func parametersOf(in map[string]*anypb.Any) (map[string]any, error) {
	out := make(map[string]any, len(in))
	for name, value := range in {
		m, err := value.UnmarshalNew()
		if err != nil {
			return nil, fmt.Errorf("the parameter %.40q is of no known type", name)
		}
		switch m := m.(type) {
		case *wrapperspb.StringValue:
			out[name] = m.GetValue()
		case *wrapperspb.BoolValue:
			out[name] = m.GetValue()
		case *wrapperspb.DoubleValue:
			out[name] = m.GetValue()
		case *wrapperspb.FloatValue:
			out[name] = m.GetValue()
		case *wrapperspb.Int32Value:
			out[name] = m.GetValue()
		case *wrapperspb.UInt32Value:
			out[name] = m.GetValue()
		case *wrapperspb.Int64Value:
			out[name] = m.GetValue()
		case *wrapperspb.UInt64Value:
			out[name] = m.GetValue()
		case *wrapperspb.BytesValue:
			out[name] = string(m.GetValue())
		case *structpb.Struct:
			out[name] = m.AsMap()
		case *structpb.ListValue:
			out[name] = m.AsSlice()
		case *structpb.Value:
			out[name] = m.AsInterface()
		default:
			return nil, fmt.Errorf("the parameter %.40q is of the type %T, which cannot be one", name, m)
		}
	}
	return out, nil
}

// contextOf is the component's id of a conversation, else the caller's.
func contextOf(reply component.ConversationReply, asked *string) *string {
	if reply.ContextID != "" {
		return &reply.ContextID
	}
	return asked
}

// ConverseAlpha2 has roles, tools and several answers.
func (s *runtime) ConverseAlpha2(ctx context.Context, in *rtv1.ConversationRequestAlpha2) (*rtv1.ConversationResponseAlpha2, error) {
	r, name := requestOf(ctx), in.GetName()
	c, err := s.d.conversationOf(r, name, len(in.GetInputs()))
	if err != nil {
		return nil, err
	}
	ask, err := conversationRequest(in)
	if err != nil {
		return nil, badConversation(name, err.Error())
	}
	reply, err := s.d.converse(r, name, c, ask)
	if err != nil {
		return nil, err
	}
	result := &rtv1.ConversationResultAlpha2{Usage: usageOf(reply.Usage)}
	if reply.Model != "" {
		result.Model = &reply.Model
	}
	for i, choice := range reply.Choices {
		result.Choices = append(result.Choices, choiceOf(i, choice, in.GetScrubPii()))
	}
	return &rtv1.ConversationResponseAlpha2{ContextId: contextOf(reply, in.ContextId), Outputs: []*rtv1.ConversationResultAlpha2{result}}, nil
}

func usageOf(u *component.ConversationUsage) *rtv1.ConversationResultAlpha2CompletionUsage {
	if u == nil {
		return nil
	}
	return &rtv1.ConversationResultAlpha2CompletionUsage{CompletionTokens: count(u.Completion), PromptTokens: count(u.Prompt), TotalTokens: count(u.Total)}
}

func count(n int64) uint64 { return uint64(max(n, 0)) }

func choiceOf(i int, c component.ConversationChoice, scrubIt bool) *rtv1.ConversationResultChoices {
	m := &rtv1.ConversationResultMessage{Content: scrubbed(c.Message.Content, scrubIt)}
	for _, call := range c.Message.ToolCalls {
		one := &rtv1.ConversationToolCalls{ToolTypes: &rtv1.ConversationToolCalls_Function{
			Function: &rtv1.ConversationToolCallsOfFunction{Name: call.Name, Arguments: call.Arguments}}}
		if call.ID != "" {
			one.Id = &call.ID
		}
		m.ToolCalls = append(m.ToolCalls, one)
	}
	return &rtv1.ConversationResultChoices{FinishReason: c.FinishReason, Index: int64(i), Message: m}
}

// conversationRequest is what a component is asked.
func conversationRequest(in *rtv1.ConversationRequestAlpha2) (out component.ConversationRequest, err error) {
	out = component.ConversationRequest{Temperature: in.Temperature, ContextID: in.GetContextId(), Metadata: in.GetMetadata()}
	if out.Parameters, err = parametersOf(in.GetParameters()); err != nil {
		return out, err
	}
	for _, input := range in.GetInputs() {
		for _, m := range input.GetMessages() {
			one, err := messageOf(m, input.GetScrubPii())
			if err != nil {
				return out, err
			}
			out.Messages = append(out.Messages, one)
		}
	}
	for _, tool := range in.GetTools() {
		if f := tool.GetFunction(); f != nil {
			out.Tools = append(out.Tools, component.ConversationTool{Name: f.GetName(), Description: f.GetDescription(), Parameters: f.GetParameters().AsMap()})
		}
	}
	if in.GetPromptCacheRetention() != nil {
		out.CacheTTL = in.GetPromptCacheRetention().AsDuration()
	}
	if in.GetResponseFormat() != nil {
		if out.Format, err = json.Marshal(in.GetResponseFormat().AsMap()); err != nil {
			return out, fmt.Errorf("the response format is no JSON: %w", err)
		}
	}
	out.ToolChoice, err = choose(in.GetToolChoice(), out.Tools)
	return out, err
}

// choose checks a choice of tools.
func choose(choice string, tools []component.ConversationTool) (string, error) {
	const must = "must be 'auto', 'none', 'required', or a specific tool name matching the tools available to be used"
	switch choice {
	case "":
		if len(tools) > 0 {
			return "auto", nil
		}
		return "", nil
	case "auto", "none":
		return choice, nil
	case "required":
		if len(tools) == 0 {
			return "", fmt.Errorf("tool choice %s", must)
		}
		return choice, nil
	}
	for _, tool := range tools {
		if tool.Name == choice {
			return choice, nil
		}
	}
	return "", fmt.Errorf("tool choice selected was not found. It %s", must)
}

// messageOf is one message; the parts of its content are lines.
func messageOf(in *rtv1.ConversationMessage, scrubIt bool) (component.ConversationMessage, error) {
	text := func(parts []*rtv1.ConversationMessageContent) string {
		var all []string
		for _, part := range parts {
			all = append(all, scrubbed(part.GetText(), scrubIt))
		}
		return strings.Join(all, "\n")
	}
	switch m := in.GetMessageTypes().(type) {
	case *rtv1.ConversationMessage_OfDeveloper:
		return component.ConversationMessage{Role: "developer", Name: m.OfDeveloper.GetName(), Content: text(m.OfDeveloper.GetContent())}, nil
	case *rtv1.ConversationMessage_OfSystem:
		return component.ConversationMessage{Role: "system", Name: m.OfSystem.GetName(), Content: text(m.OfSystem.GetContent())}, nil
	case *rtv1.ConversationMessage_OfUser:
		return component.ConversationMessage{Role: "user", Name: m.OfUser.GetName(), Content: text(m.OfUser.GetContent())}, nil
	case *rtv1.ConversationMessage_OfTool:
		return component.ConversationMessage{Role: "tool", Name: m.OfTool.GetName(), ToolCallID: m.OfTool.GetToolId(), Content: text(m.OfTool.GetContent())}, nil
	case *rtv1.ConversationMessage_OfAssistant:
		out := component.ConversationMessage{Role: "assistant", Name: m.OfAssistant.GetName(), Content: text(m.OfAssistant.GetContent())}
		for _, call := range m.OfAssistant.GetToolCalls() {
			f := call.GetFunction()
			if f == nil {
				return out, errors.New("tool types cannot be nil")
			}
			out.ToolCalls = append(out.ToolCalls, component.ConversationToolCall{ID: call.GetId(), Name: f.GetName(), Arguments: f.GetArguments()})
		}
		return out, nil
	}
	return component.ConversationMessage{}, errors.New("message type cannot be nil")
}

// conversation is POST conversation/{name}/converse of either version.
func (d *Door) conversation(w http.ResponseWriter, r *http.Request, version, name string) {
	if !allow(w, r, http.MethodPost) {
		return
	}
	s := &runtime{d: d}
	if version == "v1.0-alpha1" {
		d.converseAlpha1(w, r, name)
		return
	}
	overHTTP(d, w, r, tagConverse, &rtv1.ConversationRequestAlpha2{}, false, func(ctx context.Context, in *rtv1.ConversationRequestAlpha2) (*rtv1.ConversationResponseAlpha2, error) {
		in.Name = name
		return s.ConverseAlpha2(ctx, in)
	})
}
