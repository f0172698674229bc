package daprjob_test

import (
	"bytes"
	"testing"

	"github.com/quipu-run/quipu/internal/daprjob"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func TestDataComesBackAsItWasGiven(t *testing.T) {
	value, err := structpb.NewValue(map[string]any{"a": []any{1, "b", nil, true}})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []proto.Message{value, wrapperspb.String("x"), structpb.NewStringValue("")} {
		given, err := anypb.New(m)
		if err != nil {
			t.Fatal(err)
		}
		back(t, given)
	}
	back(t, &anypb.Any{Value: []byte{0xff, 1}})
	back(t, nil)
	kind, data, err := daprjob.FromAny(&anypb.Any{TypeUrl: "type.googleapis.com/google.protobuf.Value"})
	if kind != "" || len(data) > 0 || err != nil {
		t.Errorf("a value of nothing is %q %q, %v", kind, data, err)
	}
	if _, _, err := daprjob.FromAny(&anypb.Any{TypeUrl: "type.googleapis.com/google.protobuf.Value", Value: []byte{0xff}}); err == nil {
		t.Error("garbage is a value")
	}
}

func back(t *testing.T, given *anypb.Any) {
	t.Helper()
	kind, data, err := daprjob.FromAny(given)
	if err != nil {
		t.Fatal(err)
	}
	got, err := daprjob.ToAny(kind, data)
	if err != nil || got.GetTypeUrl() != given.GetTypeUrl() {
		t.Fatalf("%v became %v, %v", given, got, err)
	}
	if kind != "" && !bytes.Equal(got.GetValue(), given.GetValue()) {
		t.Errorf("%v became %v", given, got)
	}
	var a, b structpb.Value
	if kind == "" && given != nil {
		if proto.Unmarshal(given.GetValue(), &a) != nil || proto.Unmarshal(got.GetValue(), &b) != nil || !proto.Equal(&a, &b) {
			t.Errorf("%v became %v", &a, &b)
		}
	}
}
