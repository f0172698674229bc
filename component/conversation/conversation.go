// Package conversation talks to language models: those that speak OpenAI's chat completions, wherever they are, and an echo
// for tests.
//
// A turn acts at once and is not repeated here. Replies may be kept in memory for a while; nothing is kept over a restart.
// The key of a model is in no error.
package conversation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/quipu-run/quipu/internal/component"
)

// Limits of a turn.
const (
	requestBytesMax = 16 << 20
	replyBytesMax   = 16 << 20
	timeoutDefault  = 5 * time.Minute
)

// provider is a service that speaks OpenAI's chat completions.
type provider struct {
	endpoint string // {model} stands for the model
	model    string // if metadata says none, nor the variable
	variable string // of the environment, that has the model
	keyless  bool
}

// providers are those of Dapr that speak the protocol, with Dapr's defaults.
var providers = map[string]provider{
	"conversation.openai":      {endpoint: "https://api.openai.com/v1", model: "gpt-5-nano", variable: "OPENAI_MODEL"},
	"conversation.ollama":      {endpoint: "http://localhost:11434/v1", model: "llama3.2:latest", variable: "OLLAMA_MODEL", keyless: true},
	"conversation.deepseek":    {endpoint: "https://api.deepseek.com", model: "deepseek-chat"},
	"conversation.mistral":     {endpoint: "https://api.mistral.ai/v1", model: "open-mistral-7b", variable: "MISTRAL_MODEL"},
	"conversation.googleai":    {endpoint: "https://generativelanguage.googleapis.com/v1beta/openai", model: "gemini-2.5-flash-lite", variable: "GOOGLEAI_MODEL"},
	"conversation.huggingface": {endpoint: "https://router.huggingface.co/hf-inference/models/{model}/v1", model: "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B", variable: "HUGGINGFACE_MODEL"},
}

// azure is what is other at Azure, where the model is called by its deployment.
var azure = provider{model: "gpt-4.1-nano", variable: "AZURE_OPENAI_MODEL"}

// Factories are the types of this package.
func Factories() map[string]component.Factory {
	all := map[string]component.Factory{"conversation.echo": NewEcho}
	for kind, p := range providers {
		all[kind] = p.open
	}
	return all
}

// open makes a model. Metadata: key, model, endpoint, cacheTTL (or responseCacheTTL), timeout, and for Azure apiType and
// apiVersion.
func (p provider) open(_ context.Context, h component.Host, s component.Spec) (any, error) {
	isAzure := s.Type == "conversation.openai" && strings.EqualFold(s.Metadata.Get("apiType"), "azure")
	if isAzure {
		p = azure
	}
	m := &model{clock: h.Clock, key: s.Metadata.Get("key")}
	if m.key == "" && !p.keyless && s.Metadata.Get("endpoint") == "" {
		return nil, errors.New("metadata key is required")
	}
	m.name = cmp.Or(s.Metadata.Get("model"), h.Env[p.variable], p.model)
	endpoint := strings.TrimRight(cmp.Or(s.Metadata.Get("endpoint"), p.endpoint), "/")
	endpoint = strings.ReplaceAll(endpoint, "{model}", m.name)
	if isAzure {
		version := s.Metadata.Get("apiVersion")
		if endpoint == "" || version == "" {
			return nil, errors.New("endpoint and apiVersion must be provided when apiType is set to 'azure'")
		}
		m.keyHeader = "api-key"
		m.url = endpoint + "/openai/deployments/" + url.PathEscape(m.name) + "/chat/completions?api-version=" + url.QueryEscape(version)
	} else {
		m.url = endpoint + "/chat/completions"
	}
	if at, err := url.Parse(m.url); err != nil || at.Host == "" || (at.Scheme != "http" && at.Scheme != "https") {
		return nil, errors.New("metadata endpoint is no address like https://host/v1")
	}
	return m, m.limits(h, s.Metadata)
}

func (m *model) limits(h component.Host, settings component.Metadata) error {
	keep, err := settings.Duration(0, "responseCacheTTL", "cacheTTL")
	if err != nil {
		return err
	}
	m.replies.keep = keep
	if m.timeout, err = settings.Duration(timeoutDefault, "timeout"); err != nil {
		return err
	}
	if m.timeout == 0 {
		return errors.New("metadata timeout must be more than 0")
	}
	client := http.Client{}
	if h.Client != nil {
		client = *h.Client
	}
	// A key goes to the endpoint and nowhere else.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	m.client = &client
	return nil
}

func tooLong(what string, most int) error { return fmt.Errorf("%s has more than %d bytes", what, most) }
