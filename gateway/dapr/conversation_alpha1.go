package dapr

//lint:file-ignore SA1019 the first version is deprecated, and SDKs still call it

import (
	"context"
	"net/http"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/quipu-run/quipu/internal/component"
)

// role is OpenAI's for one of the first version's; what is not known is the user's, as in Dapr.
func role(name string) string {
	switch name {
	case "system", "assistant", "tool":
		return name
	case "ai":
		return "assistant"
	case "function":
		return "tool"
	}
	return "user"
}

// ConverseAlpha1 is the first version: texts, and one answer.
func (s *runtime) ConverseAlpha1(ctx context.Context, in *rtv1.ConversationRequest) (*rtv1.ConversationResponse, error) {
	r, name := requestOf(ctx), in.GetName()
	c, err := s.d.conversationOf(r, name, len(in.GetInputs()))
	if err != nil {
		return nil, err
	}
	ask := component.ConversationRequest{Temperature: in.Temperature, ContextID: in.GetContextID(), Metadata: in.GetMetadata()}
	if ask.Parameters, err = parametersOf(in.GetParameters()); err != nil {
		return nil, badConversation(name, err.Error())
	}
	for _, i := range in.GetInputs() {
		ask.Messages = append(ask.Messages, component.ConversationMessage{Role: role(i.GetRole()), Content: scrubbed(i.GetContent(), i.GetScrubPII())})
	}
	reply, err := s.d.converse(r, name, c, ask)
	if err != nil {
		return nil, err
	}
	out := &rtv1.ConversationResponse{ContextID: contextOf(reply, in.ContextID)}
	if len(reply.Choices) > 0 {
		out.Outputs = []*rtv1.ConversationResult{{Result: scrubbed(reply.Choices[0].Message.Content, in.GetScrubPII()), Parameters: in.GetParameters()}}
	}
	return out, nil
}

func (d *Door) converseAlpha1(w http.ResponseWriter, r *http.Request, name string) {
	overHTTP(d, w, r, tagConverse, &rtv1.ConversationRequest{}, false, func(ctx context.Context, in *rtv1.ConversationRequest) (*rtv1.ConversationResponse, error) {
		in.Name = name
		return (&runtime{d: d}).ConverseAlpha1(ctx, in)
	})
}
