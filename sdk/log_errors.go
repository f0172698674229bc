package sdk

import (
	"context"
	"errors"
	"io"

	logv1 "github.com/quipu-run/quipu/api/log/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/quipu-run/quipu"
)

func ended(err error) bool { return errors.Is(err, io.EOF) }

// told is the error that the node gave, nil if what ended the request was something else.
func told(err error) *quipu.Error {
	for _, d := range status.Convert(err).Details() {
		if e, is := d.(*logv1.Error); is && e.GetCode() != "" {
			return e.Plain()
		}
	}
	return nil
}

// problem is why a request that changes nothing got no answer: the node's error, the end of the caller's context, or
// CodeNoNode.
func (l *Log) problem(ctx context.Context, err error) error {
	if e := told(err); e != nil {
		return e
	}
	code := status.Code(err)
	switch {
	case l.closing.Err() != nil:
		return logClosed()
	case ctx.Err() != nil:
		return ctx.Err()
	case code == codes.DeadlineExceeded: // the node's clock was first
		return context.DeadlineExceeded
	case code == codes.Unavailable:
		return &quipu.Error{Code: quipu.CodeNoNode, Err: err, Text: "no node answers at " + l.opt.Address}
	}
	return &quipu.Error{Code: quipu.CodeNoNode, Err: err, Text: "what answers at " + l.opt.Address + " is not the gRPC door of a node"}
}

// problemOfChange is problem, and CodeUnknown if the change may have happened.
func (l *Log) problemOfChange(ctx context.Context, err error, sent bool) error {
	if e := told(err); e != nil {
		return e
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded, codes.Unknown, codes.Internal:
		if sent {
			return outcomeUnknown(err)
		}
	}
	return l.problem(ctx, err)
}

func outcomeUnknown(err error) error {
	return &quipu.Error{Code: quipu.CodeUnknown, Op: "log.change", Err: err, Text: "no answer came: it may or may not have happened",
		Hint: "repeat it with the same producer number, or read"}
}

func logClosed() error {
	return &quipu.Error{Code: quipu.CodeLogStopped, Op: "log.close", Text: "this connection to the log was closed"}
}
