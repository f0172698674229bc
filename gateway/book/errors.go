package book

import (
	"context"

	logv1 "github.com/quipu-run/quipu/api/log/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/gateway"
)

// statuses are what our codes are in gRPC. A client of ours reads the detail; these are for others, and for proxies,
// which may repeat what is Unavailable. What is not here is internal.
var statuses = map[quipu.Code]codes.Code{
	quipu.CodeUsage:       codes.InvalidArgument,
	quipu.CodeRecord:      codes.InvalidArgument,
	quipu.CodeToken:       codes.Unauthenticated,
	quipu.CodeOrigin:      codes.PermissionDenied,
	quipu.CodeBookLocked:  codes.PermissionDenied,
	quipu.CodeNotFound:    codes.NotFound,
	quipu.CodeNoBook:      codes.NotFound,
	quipu.CodeBookExists:  codes.AlreadyExists,
	quipu.CodeConflict:    codes.Aborted,
	quipu.CodeSnapshotOld: codes.Aborted,
	quipu.CodeFenced:      codes.FailedPrecondition,
	quipu.CodeTrimmed:     codes.OutOfRange,
	quipu.CodeOverloaded:  codes.ResourceExhausted,
	quipu.CodeQuota:       codes.ResourceExhausted,
	quipu.CodeDiskFull:    codes.ResourceExhausted,
	quipu.CodeStopping:    codes.Unavailable,
	quipu.CodeLogStopped:  codes.Unavailable,
	quipu.CodeUnknown:     codes.Unknown,
	quipu.CodeCorrupt:     codes.DataLoss,
}

// fail is err as the end of a method; nil stays nil.
func (d *Door) fail(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if _, is := status.FromError(err); is {
		return err // of gRPC itself: the stream is gone
	}
	if ended := ctx.Err(); ended != nil && quipu.CodeOf(err) == quipu.CodeInternal {
		return status.FromContextError(ended).Err()
	}
	detail := d.describe(ctx, err)
	code, known := statuses[quipu.Code(detail.Code)]
	if !known {
		code = codes.Internal
	}
	s, err := status.New(code, detail.Text+" ["+detail.Code+"]").WithDetails(detail)
	if err != nil {
		panic("book: an error is no detail: " + err.Error()) // only of a status OK
	}
	return s.Err()
}

// describe is what a client is told of err. The causes of internal errors go to the node's log.
func (d *Door) describe(ctx context.Context, err error) *logv1.Error {
	_, p := gateway.Problem(d.opt.Logger, requestOf(ctx), err)
	return logv1.NewError(p.Code, p.Error, p.Hint, p.Seq)
}

func stopping() error { return &quipu.Error{Code: quipu.CodeStopping, Op: "log.stream"} }
