package dapr

import (
	"context"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

// PublishEvent returns when the event is durable, or in the call's transaction.
func (s *runtime) PublishEvent(ctx context.Context, in *rtv1.PublishEventRequest) (*emptypb.Empty, error) {
	r := requestOf(ctx)
	to, err := s.d.placeOf(r, destination{in.GetPubsubName(), in.GetTopic()}, in.GetMetadata())
	if err != nil {
		return nil, err
	}
	_, err = s.d.publishAll(r, to, []publication{{contentType: in.GetDataContentType(), data: in.GetData(), metadata: in.GetMetadata()}})
	return &emptypb.Empty{}, err
}

// BulkPublishEvent publishes all events or, unlike Dapr, none, if their topic is on the log.
func (s *runtime) BulkPublishEvent(ctx context.Context, in *rtv1.BulkPublishRequest) (*rtv1.BulkPublishResponse, error) {
	r := requestOf(ctx)
	to, err := s.d.placeOf(r, destination{in.GetPubsubName(), in.GetTopic()}, in.GetMetadata())
	if err != nil {
		return nil, err
	}
	ps := make([]publication, 0, len(in.GetEntries()))
	for _, e := range in.GetEntries() {
		ps = append(ps, publication{entry: e.GetEntryId(), contentType: e.GetContentType(), data: e.GetEvent(), metadata: merged(in.GetMetadata(), e.GetMetadata())})
	}
	if err := to.distinct(ps); err != nil {
		return nil, err
	}
	failed, err := s.d.publishAll(r, to, ps)
	out := &rtv1.BulkPublishResponse{}
	for _, one := range failed {
		out.FailedEntries = append(out.FailedEntries, &rtv1.BulkPublishResponseFailedEntry{EntryId: one.EntryID, Error: one.Error})
	}
	if len(failed) > 0 { // which they are tells more than one error for all
		return out, nil
	}
	return out, err
}

// BulkPublishEventAlpha1 is the name it had before.
func (s *runtime) BulkPublishEventAlpha1(ctx context.Context, in *rtv1.BulkPublishRequest) (*rtv1.BulkPublishResponse, error) {
	return s.BulkPublishEvent(ctx, in)
}

// GetSecret answers no data for a secret that is not there.
func (s *runtime) GetSecret(ctx context.Context, in *rtv1.GetSecretRequest) (*rtv1.GetSecretResponse, error) {
	data, err := s.d.secret(requestOf(ctx), in.GetStoreName(), in.GetKey(), in.GetMetadata())
	if err != nil {
		return nil, err
	}
	return &rtv1.GetSecretResponse{Data: data}, nil
}

// GetBulkSecret answers all secrets that the caller may have.
func (s *runtime) GetBulkSecret(ctx context.Context, in *rtv1.GetBulkSecretRequest) (*rtv1.GetBulkSecretResponse, error) {
	all, err := s.d.secrets(requestOf(ctx), in.GetStoreName(), in.GetMetadata())
	if err != nil {
		return nil, err
	}
	out := &rtv1.GetBulkSecretResponse{Data: make(map[string]*rtv1.SecretResponse, len(all))}
	for name, values := range all {
		out.Data[name] = &rtv1.SecretResponse{Secrets: values}
	}
	return out, nil
}

// GetMetadata is what GET metadata answers.
func (s *runtime) GetMetadata(ctx context.Context, _ *rtv1.GetMetadataRequest) (*rtv1.GetMetadataResponse, error) {
	r := requestOf(ctx)
	m, err := s.d.describe(r)
	if err != nil {
		return nil, s.d.problem(r, "ERR_METADATA_GET", "", err)
	}
	out := &rtv1.GetMetadataResponse{Id: m.ID, RuntimeVersion: m.RuntimeVersion, ExtendedMetadata: m.Extended,
		ActorRuntime: &rtv1.ActorRuntime{RuntimeStatus: rtv1.ActorRuntime_ActorRuntimeStatus(rtv1.ActorRuntime_ActorRuntimeStatus_value[m.ActorRuntime.Status]),
			HostReady: m.ActorRuntime.HostReady, Placement: m.ActorRuntime.Placement}}
	for _, a := range m.ActorRuntime.Active {
		out.ActorRuntime.ActiveActors = append(out.ActorRuntime.ActiveActors, &rtv1.ActiveActorsCount{Type: a.Type, Count: a.Count})
	}
	out.EnabledFeatures = m.Features
	for _, e := range m.HTTPEndpoints {
		out.HttpEndpoints = append(out.HttpEndpoints, &rtv1.MetadataHTTPEndpoint{Name: e.Name})
	}
	for _, p := range m.Resiliencies {
		out.Resiliencies = append(out.Resiliencies, &rtv1.MetadataResiliency{Name: p.Name})
	}
	out.AppConnectionProperties = connectionOf(m.App)
	for _, c := range m.Components {
		out.RegisteredComponents = append(out.RegisteredComponents, &rtv1.RegisteredComponents{Name: c.Name, Type: c.Type, Version: c.Version, Capabilities: c.Capabilities})
	}
	for _, sub := range m.Subscriptions {
		rules := &rtv1.PubsubSubscriptionRules{}
		for _, one := range sub.Rules {
			rules.Rules = append(rules.Rules, &rtv1.PubsubSubscriptionRule{Match: one.Match, Path: one.Path})
		}
		out.Subscriptions = append(out.Subscriptions, &rtv1.PubsubSubscription{PubsubName: sub.PubSub, Topic: sub.Topic, Metadata: sub.Metadata,
			Rules: rules, DeadLetterTopic: sub.DeadLetter, Type: rtv1.PubsubSubscriptionType_PROGRAMMATIC})
	}
	return out, nil
}

func connectionOf(a AppConnection) *rtv1.AppConnectionProperties {
	out := &rtv1.AppConnectionProperties{Port: a.Port, Protocol: a.Protocol, ChannelAddress: a.ChannelAddress, MaxConcurrency: a.MaxConcurrency}
	if a.Health != nil {
		out.Health = &rtv1.AppConnectionHealthProperties{HealthCheckPath: a.Health.Path, HealthProbeInterval: a.Health.Interval,
			HealthProbeTimeout: a.Health.Timeout, HealthThreshold: a.Health.Threshold}
	}
	return out
}

// SetMetadata is PUT metadata.
func (s *runtime) SetMetadata(_ context.Context, in *rtv1.SetMetadataRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, s.d.extend(in.GetKey(), in.GetValue())
}

// Shutdown is refused where the platform starts and stops instances.
func (s *runtime) Shutdown(ctx context.Context, _ *rtv1.ShutdownRequest) (*emptypb.Empty, error) {
	if s.d.opt.Shutdown == nil {
		return nil, status.Error(codes.PermissionDenied, noShutdown)
	}
	s.d.endApp(requestOf(ctx))
	return &emptypb.Empty{}, nil
}
