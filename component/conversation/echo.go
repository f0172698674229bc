package conversation

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/quipu-run/quipu/internal/component"
)

// echo answers what it was told, and calls all tools that there are, with the names of their arguments.
type echo struct{}

// NewEcho makes a conversation.echo. It has no metadata.
func NewEcho(context.Context, component.Host, component.Spec) (any, error) { return echo{}, nil }

// Converse is component.Conversation.
func (echo) Converse(_ context.Context, r component.ConversationRequest) (component.ConversationReply, error) {
	reply := component.ConversationReply{ContextID: r.ContextID}
	if len(r.Messages) == 0 {
		return reply, nil
	}
	var calls []component.ConversationToolCall
	for i, tool := range r.Tools {
		names, err := arguments(tool)
		if err != nil {
			return reply, err
		}
		calls = append(calls, component.ConversationToolCall{ID: strconv.Itoa(i), Name: tool.Name, Arguments: strings.Join(names, ",")})
	}
	var lines []string
	for _, m := range r.Messages {
		switch {
		case m.Role == "tool":
			lines = append(lines, fmt.Sprintf("Tool Response for tool ID '%s' with name '%s': %s", m.ToolCallID, m.Name, m.Content))
		case m.Content != "" || len(m.ToolCalls) == 0:
			lines = append(lines, m.Content)
		}
		calls = append(calls, m.ToolCalls...)
	}
	content := strings.Join(lines, "\n")
	choice := component.ConversationChoice{FinishReason: "stop",
		Message: component.ConversationMessage{Role: "assistant", Content: content, ToolCalls: calls}}
	if len(calls) > 0 {
		choice.FinishReason = "tool_calls"
	}
	words := int64(len(strings.Fields(content)))
	reply.Choices = []component.ConversationChoice{choice}
	reply.Usage = &component.ConversationUsage{Prompt: words, Completion: words, Total: 2 * words}
	return reply, nil
}

// arguments are the names of a tool's, in order.
func arguments(tool component.ConversationTool) ([]string, error) {
	properties, ok := tool.Parameters["properties"]
	if !ok {
		return nil, nil
	}
	named, ok := properties.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("tool function properties must be a map[string]any, got %T", properties)
	}
	return slices.Sorted(maps.Keys(named)), nil
}
