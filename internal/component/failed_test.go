package component

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/quipu-run/quipu"
)

func TestWhatFailsOutsideIsToldWithoutTheAddressOfTheRequest(t *testing.T) {
	refused := &url.Error{Op: "Post", URL: "https://example.com/?token=hunter2", Err: errors.New("connection refused")}
	got := quipu.AsError(Failed("binding.http", fmt.Errorf("ask: %w", refused)))
	if got.Code != quipu.CodeOutside || got.Text != "Post: connection refused" || strings.Contains(got.Error(), "hunter2") {
		t.Errorf("%+v", got)
	}
	if got := quipu.AsError(Failed("binding.http", errors.New("received status code 404"))); got.Code != quipu.CodeOutside || got.Text != "received status code 404" {
		t.Errorf("%+v", got)
	}
}

func TestALateAnswerIsTold(t *testing.T) {
	late := &url.Error{Op: "Get", URL: "https://example.com/", Err: context.DeadlineExceeded}
	if got := quipu.AsError(Failed("binding.http", late)); got.Text != "there was no answer in time" || !errors.Is(got, context.DeadlineExceeded) {
		t.Errorf("%+v", got)
	}
}

func TestWhatFailsInsideIsNotFailedOutside(t *testing.T) {
	for _, err := range []error{nil, context.Canceled, &quipu.Error{Code: quipu.CodeETag}} {
		if got := Failed("binding.redis", err); got != err {
			t.Errorf("%v became %v", err, got)
		}
	}
}
