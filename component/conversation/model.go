package conversation

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/component"
)

// errorTextMax bounds what of a model's error is told.
const errorTextMax = 500

// model is one that speaks chat completions.
type model struct {
	url, name      string
	key, keyHeader string // keyHeader "" is a bearer token
	timeout        time.Duration
	client         *http.Client
	clock          quipu.Clock
	replies        cache
}

// Converse is component.Conversation.
func (m *model) Converse(ctx context.Context, r component.ConversationRequest) (component.ConversationReply, error) {
	body, err := encode(m.name, r)
	if err != nil {
		return component.ConversationReply{}, err
	}
	if len(body) > requestBytesMax {
		return component.ConversationReply{}, tooLong("the conversation", requestBytesMax)
	}
	text, kept := m.replies.get(body, m.clock.Now())
	if !kept {
		if text, err = m.post(ctx, body); err != nil {
			return component.ConversationReply{}, component.Failed("conversation.converse", err)
		}
	}
	reply, err := decode(text)
	if err != nil {
		return reply, component.Failed("conversation.converse", err)
	}
	if r.ToolChoice == "required" && len(r.Tools) > 0 && saysNothing(reply) {
		return reply, component.Failed("conversation.converse",
			fmt.Errorf("the model answered nothing and called no tool, although one of %d was required", len(r.Tools)))
	}
	if !kept {
		m.replies.put(body, text, m.clock.Now())
	}
	reply.ContextID = r.ContextID
	if reply.Model == "" {
		reply.Model = m.name
	}
	return reply, nil
}

// Close gives back what was kept.
func (m *model) Close() error {
	m.replies.clear()
	return nil
}

func saysNothing(r component.ConversationReply) bool {
	for _, c := range r.Choices {
		if c.Message.Content != "" || len(c.Message.ToolCalls) > 0 {
			return false
		}
	}
	return true
}

func (m *model) post(ctx context.Context, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, m.url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	switch {
	case m.key == "":
	case m.keyHeader != "":
		request.Header.Set(m.keyHeader, m.key)
	default:
		request.Header.Set("Authorization", "Bearer "+m.key)
	}
	response, err := m.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask the model: %w", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, replyBytesMax+1))
	if err != nil {
		return nil, fmt.Errorf("read the model's reply: %w", err)
	}
	if len(text) > replyBytesMax {
		return nil, tooLong("the model's reply", replyBytesMax)
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the model answered with status %d: %s", response.StatusCode, m.complaint(text))
	}
	return text, nil
}

// complaint is what a model says is wrong, without the key, which some repeat.
func (m *model) complaint(text []byte) string {
	var said struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	message := "it does not say why"
	if json.Unmarshal(text, &said) == nil && said.Error.Message != "" {
		message = said.Error.Message
	}
	if m.key != "" {
		message = strings.ReplaceAll(message, m.key, "***")
	}
	return strings.ToValidUTF8(message[:min(len(message), errorTextMax)], "")
}

// The protocol: what is sent and what comes back.
type (
	chatMessage struct {
		Role       string     `json:"role"`
		Content    *string    `json:"content"`
		Name       string     `json:"name,omitempty"`
		ToolCallID string     `json:"tool_call_id,omitempty"`
		ToolCalls  []chatCall `json:"tool_calls,omitempty"`
		Refusal    string     `json:"refusal,omitempty"`
	}
	chatCall struct {
		ID       string       `json:"id"`
		Type     string       `json:"type"`
		Function chatFunction `json:"function"`
	}
	chatFunction struct {
		Name        string         `json:"name"`
		Description string         `json:"description,omitempty"`
		Parameters  map[string]any `json:"parameters,omitempty"`
		Arguments   *string        `json:"arguments,omitempty"`
	}
	chatTool struct {
		Type     string       `json:"type"`
		Function chatFunction `json:"function"`
	}
	chatReply struct {
		Model   string `json:"model"`
		Choices []struct {
			FinishReason string      `json:"finish_reason"`
			Message      chatMessage `json:"message"`
		} `json:"choices"`
		Usage *struct {
			Prompt     int64 `json:"prompt_tokens"`
			Completion int64 `json:"completion_tokens"`
			Total      int64 `json:"total_tokens"`
		} `json:"usage"`
	}
)

// encode writes a request. What parameters say goes along, but in no place of what the request itself says.
func encode(model string, r component.ConversationRequest) ([]byte, error) {
	body := make(map[string]any, len(r.Parameters)+8)
	for name, value := range r.Parameters {
		body[name] = value
	}
	delete(body, "stream") // a reply comes whole
	body["model"] = model
	body["messages"] = encodeMessages(r.Messages)
	if r.Temperature != nil {
		body["temperature"] = *r.Temperature
	}
	if len(r.Tools) > 0 {
		tools := make([]chatTool, len(r.Tools))
		for i, t := range r.Tools {
			tools[i] = chatTool{Type: "function", Function: chatFunction{Name: t.Name, Description: t.Description, Parameters: t.Parameters}}
		}
		body["tools"] = tools
	}
	switch r.ToolChoice {
	case "":
	case "auto", "none", "required":
		body["tool_choice"] = r.ToolChoice
	default:
		body["tool_choice"] = chatTool{Type: "function", Function: chatFunction{Name: r.ToolChoice}}
	}
	if len(r.Format) > 0 {
		body["response_format"] = map[string]any{"type": "json_schema", "json_schema": map[string]any{"name": formatName(r.Format), "strict": true, "schema": r.Format}}
	}
	if len(r.Metadata) > 0 {
		body["metadata"] = r.Metadata
	}
	if r.CacheTTL > 0 {
		body["prompt_cache_retention"] = retention(r.CacheTTL)
	}
	return json.Marshal(body)
}

// retention is one of the two times for which OpenAI keeps prompts.
func retention(d time.Duration) string {
	if d <= time.Hour {
		return "in_memory"
	}
	return "24h"
}

// formatName is the name of a schema: its title, as far as the protocol allows it.
func formatName(schema json.RawMessage) string {
	var said struct {
		Title string `json:"title"`
	}
	name := ""
	if json.Unmarshal(schema, &said) == nil {
		name = strings.Map(func(c rune) rune {
			if c == '_' || c == '-' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
				return c
			}
			return '_'
		}, said.Title)
	}
	if name == "" {
		return "response"
	}
	return name[:min(len(name), 64)]
}

func encodeMessages(messages []component.ConversationMessage) []chatMessage {
	all := make([]chatMessage, len(messages))
	for i, m := range messages {
		all[i] = chatMessage{Role: m.Role, Name: m.Name, ToolCallID: m.ToolCallID, Content: &m.Content}
		if m.Role == "tool" {
			all[i].Name = "" // the id says it
		}
		if m.Content == "" && len(m.ToolCalls) > 0 {
			all[i].Content = nil
		}
		for _, c := range m.ToolCalls {
			all[i].ToolCalls = append(all[i].ToolCalls, chatCall{ID: c.ID, Type: "function", Function: chatFunction{Name: c.Name, Arguments: &c.Arguments}})
		}
	}
	return all
}

// decode reads a reply.
func decode(text []byte) (component.ConversationReply, error) {
	var from chatReply
	if err := json.Unmarshal(text, &from); err != nil {
		return component.ConversationReply{}, fmt.Errorf("the model's reply is no chat completion: %w", err)
	}
	if len(from.Choices) == 0 {
		return component.ConversationReply{}, errors.New("the model's reply has no choices")
	}
	reply := component.ConversationReply{Model: from.Model}
	if from.Usage != nil {
		reply.Usage = &component.ConversationUsage{Prompt: from.Usage.Prompt, Completion: from.Usage.Completion, Total: from.Usage.Total}
	}
	for _, c := range from.Choices {
		to := component.ConversationChoice{FinishReason: c.FinishReason, Message: component.ConversationMessage{Role: c.Message.Role, Content: c.Message.Refusal}}
		if to.FinishReason == "" {
			to.FinishReason = "unknown" // as Dapr says for those that do not
		}
		if to.Message.Role == "" {
			to.Message.Role = "assistant"
		}
		if c.Message.Content != nil && *c.Message.Content != "" {
			to.Message.Content = *c.Message.Content
		}
		for _, call := range c.Message.ToolCalls {
			args := ""
			if call.Function.Arguments != nil {
				args = *call.Function.Arguments
			}
			to.Message.ToolCalls = append(to.Message.ToolCalls, component.ConversationToolCall{ID: call.ID, Name: call.Function.Name, Arguments: args})
		}
		reply.Choices = append(reply.Choices, to)
	}
	return reply, nil
}
