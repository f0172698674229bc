// Package daprjob is the data of a Dapr job, in the two forms that it has: a google.protobuf.Any over gRPC, JSON or bytes over HTTP. The door
// takes it in, the contract hands it out.
package daprjob

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
)

// HeaderDataType has the type of a job's data on its way to an application.
const HeaderDataType = "Quipu-Job-Data-Type"

const valueType = "type.googleapis.com/google.protobuf.Value"

// Untyped is the type of an Any that names none.
const Untyped = "none"

// FromAny is what is kept of an Any: JSON, of type "", if it is a JSON value; else its bytes with its type.
func FromAny(a *anypb.Any) (dataType string, data []byte, err error) {
	switch {
	case a == nil:
		return "", nil, nil
	case a.GetTypeUrl() == "":
		return Untyped, a.GetValue(), nil
	case a.GetTypeUrl() != valueType:
		return a.GetTypeUrl(), a.GetValue(), nil
	}
	var v structpb.Value
	if err := proto.Unmarshal(a.GetValue(), &v); err != nil {
		return "", nil, fmt.Errorf("the data is no %s: %w", valueType, err)
	}
	if v.GetKind() == nil {
		return "", nil, nil
	}
	data, err = v.MarshalJSON()
	return "", data, err
}

// ToAny is the reverse of FromAny.
func ToAny(dataType string, data []byte) (*anypb.Any, error) {
	switch {
	case dataType == Untyped:
		return &anypb.Any{Value: data}, nil
	case dataType != "":
		return &anypb.Any{TypeUrl: dataType, Value: data}, nil
	case len(data) == 0:
		return nil, nil
	}
	var v structpb.Value
	if err := v.UnmarshalJSON(data); err != nil {
		return nil, fmt.Errorf("the data is no JSON: %w", err)
	}
	return anypb.New(&v)
}
