package grpcwire

import (
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec that Codec stands in front of
	"google.golang.org/grpc/mem"
)

// Bytes is a message that its sender has encoded, or its receiver will read, without a type.
type Bytes struct {
	Out mem.BufferSlice // to be sent
	In  []byte          // received, and the receiver's own
}

// Codec leaves Bytes as they are, and everything else to proto.
type Codec struct{ encoding.CodecV2 }

// NewCodec makes one.
func NewCodec() Codec { return Codec{encoding.GetCodecV2("proto")} }

// Marshal implements encoding.CodecV2.
func (c Codec) Marshal(v any) (mem.BufferSlice, error) {
	if b, is := v.(*Bytes); is {
		return b.Out, nil
	}
	return c.CodecV2.Marshal(v)
}

// Unmarshal implements encoding.CodecV2.
func (c Codec) Unmarshal(data mem.BufferSlice, v any) error {
	if b, is := v.(*Bytes); is {
		b.In = data.Materialize()
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}
