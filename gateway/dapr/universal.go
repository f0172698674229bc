package dapr

import (
	"context"
	"errors"
	"io"
	"net/http"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// readMessage reads a body that is a message of gRPC as JSON; none is an empty message.
func (d *Door) readMessage(w http.ResponseWriter, r *http.Request, in proto.Message) error {
	defer d.bound(w, r)()
	body, err := io.ReadAll(r.Body)
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return err
	case err != nil:
		return &problem{status: http.StatusBadRequest, tag: "ERR_BODY_READ", message: "failed to read request body: " + err.Error()}
	case len(body) == 0:
		return nil
	}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true, AllowPartial: true}).Unmarshal(body, in); err != nil {
		return malformed(err)
	}
	return nil
}

// overHTTP answers with what a method of gRPC answers. Numbers and flags that are zero are told too if all is set.
func overHTTP[In, Out proto.Message](d *Door, w http.ResponseWriter, r *http.Request, tag string, in In, all bool, do func(context.Context, In) (Out, error)) {
	err := d.readMessage(w, r, in)
	var out Out
	if err == nil {
		out, err = do(context.WithValue(r.Context(), requestKey{}, r), in)
	}
	var body []byte
	if err == nil {
		body, err = protojson.MarshalOptions{EmitUnpopulated: all, UseEnumNumbers: all}.Marshal(out)
	}
	if err != nil {
		d.fail(w, r, tag, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) // a client that left has nobody to tell
}
