package pluggable

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	proto "github.com/dapr/dapr/pkg/proto/components/v1"
	"github.com/quipu-run/quipu/internal/component"
	"google.golang.org/grpc"
)

// eventsMax bounds the events of a binding that are delivered at once.
const eventsMax = 100

// foreignInput is an input binding of a program.
type foreignInput struct {
	*link
	client proto.InputBindingClient
}

// foreignOutput is an output binding of a program.
type foreignOutput struct {
	*link
	client     proto.OutputBindingClient
	operations []string
}

// foreignBinding is both; they have one connection.
type foreignBinding struct {
	foreignInput
	foreignOutput
}

// Close ends all calls.
func (b *foreignBinding) Close() error { return b.foreignInput.Close() }

// bindingFactory makes what the program serves and what the metadata's direction leaves of it.
func bindingFactory(socket string, served services) component.Factory {
	return func(ctx context.Context, h component.Host, s component.Spec) (any, error) {
		direction := strings.ToLower(s.Metadata.Get("direction"))
		in := served[proto.InputBinding_ServiceDesc.ServiceName] && (direction == "" || strings.Contains(direction, "input"))
		out := served[proto.OutputBinding_ServiceDesc.ServiceName] && (direction == "" || strings.Contains(direction, "output"))
		if !in && !out {
			return nil, fmt.Errorf("the program serves no binding of direction %.40q", direction)
		}
		l, err := open(ctx, socket, h, s, func(ctx context.Context, conn grpc.ClientConnInterface) error {
			return beginBinding(ctx, conn, s, in, out)
		})
		if err != nil {
			return nil, err
		}
		b := &foreignBinding{foreignInput{l, proto.NewInputBindingClient(l.conn)}, foreignOutput{link: l, client: proto.NewOutputBindingClient(l.conn)}}
		if !out {
			return &b.foreignInput, nil
		}
		reply, err := b.foreignOutput.client.ListOperations(ctx, &proto.ListOperationsRequest{})
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
		b.operations = reply.GetOperations()
		if !in {
			return &b.foreignOutput, nil
		}
		return b, nil
	}
}

func beginBinding(ctx context.Context, conn grpc.ClientConnInterface, s component.Spec, in, out bool) error {
	metadata := &proto.MetadataRequest{Properties: s.Metadata}
	if in {
		if _, err := proto.NewInputBindingClient(conn).Init(ctx, &proto.InputBindingInitRequest{Metadata: metadata}); err != nil {
			return err
		}
	}
	if out {
		if _, err := proto.NewOutputBindingClient(conn).Init(ctx, &proto.OutputBindingInitRequest{Metadata: metadata}); err != nil {
			return err
		}
	}
	return nil
}

// Operations is component.OutputBinding.
func (f *foreignOutput) Operations() []string { return f.operations }

// Invoke is component.OutputBinding.
func (f *foreignOutput) Invoke(ctx context.Context, r component.BindingRequest) (component.BindingReply, error) {
	reply, err := f.client.Invoke(ctx, &proto.InvokeRequest{Operation: r.Operation, Data: r.Data, Metadata: r.Metadata})
	if err != nil {
		return component.BindingReply{}, component.Failed("binding.pluggable", err)
	}
	out := component.BindingReply{Data: reply.GetData(), Metadata: reply.GetMetadata()}
	if out.Data == nil { // there is a reply, as in Dapr
		out.Data = []byte{}
	}
	return out, nil
}

// Read is component.InputBinding. Events come several at a time. One under way when ctx ends is not answered.
func (f *foreignInput) Read(ctx context.Context, deliver func(context.Context, component.BindingEvent) ([]byte, error)) error {
	return f.again(ctx, func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		var working sync.WaitGroup
		defer working.Wait()
		defer cancel()
		stream, err := f.client.Read(ctx)
		if err != nil {
			return err
		}
		answers := answering{stream: stream}
		places := make(chan struct{}, eventsMax)
		for {
			m, err := stream.Recv()
			if err != nil {
				return fmt.Errorf("read the binding: %w", err)
			}
			places <- struct{}{}
			working.Go(func() {
				defer func() { <-places }()
				data, failed := deliver(stream.Context(), component.BindingEvent{Data: m.GetData(), ContentType: m.GetContentType(), Metadata: m.GetMetadata()})
				if !answers.send(m.GetMessageId(), data, failed) {
					cancel()
				}
			})
		}
	})
}

// answering sends one answer at a time.
type answering struct {
	mu     sync.Mutex
	stream proto.InputBinding_ReadClient
}

// send is false if the stream is broken.
func (a *answering) send(id string, data []byte, failed error) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stream.Context().Err() != nil {
		return true // it ends without
	}
	answer := &proto.ReadRequest{MessageId: id, ResponseData: data}
	if failed != nil {
		answer.ResponseError = &proto.AckResponseError{Message: failed.Error()}
	}
	return a.stream.Send(answer) == nil
}
