package bindings

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/cloudevent"
	"github.com/quipu-run/quipu/internal/component"
)

// queueNames are the settings in which a type of binding has the names of its queues.
type queueNames struct {
	read, write []string
	override    string // of a request's metadata, that names another topic
}

// queueIn is an input binding that is a topic. Its events are given as they were published.
type queueIn struct{ trigger quipu.TopicTrigger }

// InputTopic is component.InputTopic.
func (q queueIn) InputTopic() quipu.TopicTrigger { return q.trigger }

// queueOut is an output binding that is a topic: what it is given is durable when Invoke returns.
type queueOut struct {
	topics   quipu.Topics
	topic    string
	override string
	kind     string
	ttl      time.Duration
	settings component.Metadata
}

// queueBoth is both.
type queueBoth struct {
	queueIn
	queueOut
}

// queueFactory makes bindings of which the queues are topics of the platform. Metadata: the names of the topics, ttlInSeconds,
// contentType, direction, route. Where a broker is and how to log in there is of no interest here.
func queueFactory(names queueNames) component.Factory {
	return func(_ context.Context, h component.Host, s component.Spec) (any, error) {
		read, write := s.Metadata.Get(names.read...), s.Metadata.Get(names.write...)
		in, out := directions(s.Metadata)
		in, out = in && read != "", out && write != ""
		if !in && !out {
			return nil, fmt.Errorf("metadata %s is required", names.read[0])
		}
		if strings.Contains(read, ",") && in {
			return nil, fmt.Errorf("metadata %s has several topics; declare a binding for each", names.read[0])
		}
		for _, topic := range []string{read, write} {
			if err := checkTopic(topic); err != nil {
				return nil, err
			}
		}
		life, err := ttl(s.Metadata)
		if err != nil {
			return nil, err
		}
		from := quipu.FromLatest
		if strings.EqualFold(s.Metadata.Get("initialOffset"), "oldest") {
			from = quipu.FromEarliest
		}
		input := queueIn{quipu.TopicTrigger{Name: read, Path: route(s), Batch: 1, Raw: true, From: from, Retry: retryDefault()}}
		output := queueOut{topics: h.Topics, topic: write, override: names.override, kind: s.Type, ttl: life, settings: s.Metadata}
		switch {
		case in && out:
			return queueBoth{input, output}, nil
		case in:
			return input, nil
		}
		return output, nil
	}
}

// checkTopic refuses what cannot be a topic when the binding is made and not when it is first used.
func checkTopic(name string) error {
	switch {
	case len(name) > quipu.TopicNameMax || strings.HasPrefix(name, quipu.PlatformTopicStart):
		return fmt.Errorf("%.80q cannot be the name of a topic: %s", name, quipu.Codes[quipu.CodeTopicName].Why)
	case strings.ContainsAny(name, "+#"):
		return fmt.Errorf("%.80q has wildcards, which topics of the platform have not", name)
	}
	return nil
}

// Operations is component.OutputBinding.
func (queueOut) Operations() []string { return []string{opCreate} }

// Invoke is component.OutputBinding. Request metadata: ttlInSeconds, contentType, and for MQTT topic.
func (q queueOut) Invoke(ctx context.Context, r component.BindingRequest) (component.BindingReply, error) {
	if r.Operation != opCreate {
		return component.BindingReply{}, unsupported(q.kind, r.Operation)
	}
	topic := q.topic
	if q.override != "" && r.Metadata[q.override] != "" {
		topic = r.Metadata[q.override]
		if err := checkTopic(topic); err != nil {
			return component.BindingReply{}, err
		}
	}
	life, err := ttl(r.Metadata)
	if err != nil {
		return component.BindingReply{}, err
	}
	if life == 0 {
		life = q.ttl
	}
	kind := component.Metadata(r.Metadata).Get("contentType", "Content-Type")
	if kind == "" {
		kind = contentType(q.settings, r.Data)
	}
	if q.topics == nil {
		return component.BindingReply{}, errors.New("there are no topics here")
	}
	return component.BindingReply{}, q.topics.Publish(ctx, []quipu.Message{{Topic: topic, ID: cloudevent.NewID(), ContentType: kind, Data: r.Data, TTL: life}})
}
