package component

import (
	"context"
	"errors"
	"net/url"

	"github.com/quipu-run/quipu"
)

// Failed is what went wrong in the world outside, where it is nobody's secret: whoever asked is told, as in Dapr, and it
// is no internal error. Addresses of requests are left out, since some have secrets in them; so is the cause.
func Failed(op string, err error) error {
	var ours *quipu.Error
	if err == nil || errors.As(err, &ours) || errors.Is(err, context.Canceled) {
		return err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return &quipu.Error{Code: quipu.CodeOutside, Op: op, Text: "there was no answer in time", Err: context.DeadlineExceeded}
	}
	text := err.Error()
	if at := (*url.Error)(nil); errors.As(err, &at) {
		text = at.Op + ": " + at.Err.Error()
	}
	return &quipu.Error{Code: quipu.CodeOutside, Op: op, Text: text}
}
