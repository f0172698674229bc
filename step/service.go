package step

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/quipu-run/quipu"
	stepsv1 "github.com/quipu-run/quipu/api/steps/v1"
	"github.com/quipu-run/quipu/internal/grpcwire"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// messageBytesMax bounds the entries of one answer: clients of gRPC take 4 MiB if they are told nothing else.
const messageBytesMax = 3 << 20

// errorDomain is that of the detail that an error has over gRPC.
const errorDomain = "quipu.dev"

// Register adds the journals of a function's runs to a server, which guards it: what Door is over HTTP.
func (e *Engine) Register(s grpc.ServiceRegistrar, function string) {
	stepsv1.RegisterJournalServiceServer(s, &service{e: e, function: function})
}

type service struct {
	stepsv1.UnimplementedJournalServiceServer
	e        *Engine
	function string
}

// asked does what the run that is named in the metadata asks for.
func (s *service) asked(ctx context.Context, do func(x *execution, token string) error) error {
	token := ""
	if values := metadata.ValueFromIncomingContext(ctx, HeaderRun); len(values) > 0 {
		token = values[0]
	}
	err := s.e.asked(s.function, token, func(x *execution) error { return do(x, token) })
	if err == nil {
		return nil
	}
	if ended := ctx.Err(); ended != nil && quipu.CodeOf(err) == quipu.CodeInternal {
		return status.FromContextError(ended).Err()
	}
	return fault(err)
}

// fault is an error in gRPC, with its code as a detail. What is not a user's is internal.
func fault(err error) error {
	p := quipu.AsError(err)
	code := grpcwire.CodeOf(quipu.Codes[p.Code].Status)
	switch p.Code {
	case quipu.CodeLeaseLost, quipu.CodeJournal: // nothing to try again, as Aborted would say
		code = codes.FailedPrecondition
	}
	plain := status.New(code, fmt.Sprintf("%s [%s]", p.Text, p.Code))
	if s, err := plain.WithDetails(&errdetails.ErrorInfo{Reason: string(p.Code), Domain: errorDomain, Metadata: map[string]string{"hint": p.Hint}}); err == nil {
		return s.Err()
	}
	return plain.Err()
}

// Append implements stepsv1.JournalServiceServer.
func (s *service) Append(ctx context.Context, in *stepsv1.AppendRequest) (out *stepsv1.AppendResponse, err error) {
	err = s.asked(ctx, func(x *execution, token string) error {
		want, err := wantedOf(in)
		if err != nil {
			return err
		}
		there, known, err := s.e.enter(ctx, x, token, want)
		out = &stepsv1.AppendResponse{Entry: there.proto(), Known: known, Suspended: there.suspended}
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Read implements stepsv1.JournalServiceServer.
func (s *service) Read(ctx context.Context, in *stepsv1.ReadRequest) (out *stepsv1.ReadResponse, err error) {
	err = s.asked(ctx, func(x *execution, token string) error {
		p, err := x.page(token, int(min(in.GetFrom(), math.MaxInt32)), messageBytesMax)
		out = &stepsv1.ReadResponse{Next: uint32(p.Next)}
		for _, one := range p.Entries {
			out.Entries = append(out.Entries, one.proto())
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Wait implements stepsv1.JournalServiceServer.
func (s *service) Wait(ctx context.Context, in *stepsv1.WaitRequest) (out *stepsv1.WaitResponse, err error) {
	err = s.asked(ctx, func(x *execution, token string) error {
		there, err := x.wait(ctx, token, in.GetId(), int(min(in.GetMs(), waitMillisMax)))
		out = &stepsv1.WaitResponse{Entry: there.proto(), Suspended: there.suspended}
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// wantedOf is an entry as HTTP would have it. CodeBadJSON; what has no kind is for entry to refuse.
func wantedOf(in *stepsv1.AppendRequest) (*wanted, error) {
	want := &wanted{ID: in.GetId(), Name: in.GetName()}
	switch kind := in.GetKind().(type) {
	case *stepsv1.AppendRequest_Step:
		want.Kind, want.Result = kindStep, kind.Step.GetResult()
		if f := kind.Step.GetError(); f != nil {
			want.Error = &Failure{Type: f.GetType(), Message: f.GetMessage()}
		}
	case *stepsv1.AppendRequest_Sleep:
		want.Kind = kindSleep
		switch end := kind.Sleep.GetEnd().(type) {
		case *stepsv1.Sleep_Ms:
			want.Millis = &end.Ms
		case *stepsv1.Sleep_UntilUnixMs:
			want.Until = at(end.UntilUnixMs)
		}
	case *stepsv1.AppendRequest_Event:
		want.Kind = kindEvent
		switch end := kind.Event.GetEnd().(type) {
		case *stepsv1.Event_Ms:
			want.Millis = &end.Ms
		case *stepsv1.Event_UntilUnixMs:
			want.Until = at(end.UntilUnixMs)
		}
	case *stepsv1.AppendRequest_Call:
		want.Kind, want.Input, want.Path = kindCall, kind.Call.GetInput(), kind.Call.GetPath()
	}
	for _, value := range []json.RawMessage{want.Result, want.Input} {
		if len(value) > 0 && !json.Valid(value) {
			return nil, &quipu.Error{Code: quipu.CodeBadJSON, Op: "step.append", Text: "what the entry has is no JSON"}
		}
	}
	if len(want.Result) == 0 {
		want.Result = nil
	}
	return want, nil
}

func at(ms int64) *time.Time {
	t := time.UnixMilli(ms)
	return &t
}

func (s shown) proto() *stepsv1.Entry {
	e := &stepsv1.Entry{Id: s.ID, Kind: s.Kind, Name: s.Name, Done: s.Done, Timeout: s.Timeout, Result: s.Result}
	if s.Error != nil {
		e.Error = &stepsv1.Failure{Type: s.Error.Type, Message: s.Error.Message}
	}
	if !s.Until.IsZero() {
		e.UntilUnixMs = s.Until.UnixMilli()
	}
	return e
}
