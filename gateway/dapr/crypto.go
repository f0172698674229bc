package dapr

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/quipu-run/quipu/internal/component"
	"github.com/quipu-run/quipu/internal/sealed"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

const (
	tagCrypto         = "ERR_CRYPTO"
	cryptoFirstMax    = 5 * time.Second // until the first message of a stream, which has the options
	cryptoPayloadMost = 64 << 10        // bytes of one message of an answer
)

// cryptoOf finds a component with keys.
func (d *Door) cryptoOf(r *http.Request, name string) (component.Crypto, error) {
	set, err := d.set(r)
	if err != nil {
		return nil, d.problem(r, tagCrypto, "", err)
	}
	c, ok := component.Of[component.Crypto](set, name)
	switch {
	case !ok && !component.Any[component.Crypto](set):
		return nil, &problem{status: http.StatusInternalServerError, tag: "ERR_CRYPTO_PROVIDERS_NOT_CONFIGURED", message: "crypto providers not configured"}
	case name == "":
		return nil, badParameter("missing component name")
	case !ok:
		return nil, &problem{status: http.StatusBadRequest, tag: "ERR_CRYPTO_PROVIDER_NOT_FOUND", message: fmt.Sprintf("crypto provider %s not found", name)}
	}
	return c, nil
}

// cryptoProblem says what Dapr says. Where a reason would help who guesses, why is one for all.
func cryptoProblem(why string) error {
	return &problem{status: http.StatusInternalServerError, code: codes.Internal, tag: tagCrypto, message: "failed to perform operation: " + why}
}

// crypt seals or opens a document.
type crypt func(out io.Writer, in io.Reader) error

func sealing(r *http.Request, c component.Crypto, o sealed.Options) crypt {
	return func(out io.Writer, in io.Reader) error { return sealed.Seal(r.Context(), out, in, c, o) }
}

func opening(r *http.Request, c component.Crypto, key string) crypt {
	return func(out io.Writer, in io.Reader) error { return sealed.Open(r.Context(), out, in, c, key) }
}

// crypto serves PUT crypto/{component}/encrypt and /decrypt. The answer comes whole or not at all.
func (d *Door) crypto(w http.ResponseWriter, r *http.Request, name, what string) {
	if !allow(w, r, http.MethodPut) {
		return
	}
	c, err := d.cryptoOf(r, name)
	var do crypt
	switch h := r.Header; {
	case err != nil:
	case what == "decrypt":
		do = opening(r, c, h.Get("dapr-key-name"))
	case h.Get("dapr-key-name") == "":
		err = badParameter("missing header 'dapr-key-name'")
	case h.Get("dapr-key-wrap-algorithm") == "":
		err = badParameter("missing header 'dapr-key-wrap-algorithm'")
	default:
		do = sealing(r, c, sealed.Options{Key: h.Get("dapr-key-name"), Algorithm: h.Get("dapr-key-wrap-algorithm"), Cipher: h.Get("dapr-data-encryption-cipher"),
			DecryptionKey: h.Get("dapr-decryption-key-name"), OmitKey: isTruthy(h.Get("dapr-omit-decryption-key-name"))})
	}
	var out bytes.Buffer
	if err == nil {
		defer d.bound(w, r)()
		body := &watchedBody{from: r.Body}
		if err = do(&out, body); err != nil && body.err != nil {
			err = body.err // it is not the document that is wrong
		} else if err != nil {
			err = cryptoProblem(err.Error())
		}
	}
	if err != nil {
		d.fail(w, r, tagCrypto, err)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(out.Bytes()) // a client that left has nobody to tell
}

// watchedBody keeps what reading a body failed with.
type watchedBody struct {
	from io.Reader
	err  error
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.from.Read(p)
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

func isTruthy(text string) bool {
	switch strings.ToLower(text) {
	case "y", "yes", "true", "t", "on", "1":
		return true
	}
	return false
}

// EncryptAlpha1 seals what a stream brings. The first message has the options.
func (s *runtime) EncryptAlpha1(stream rtv1.Dapr_EncryptAlpha1Server) error {
	first := &rtv1.EncryptRequest{}
	if err := receiveFirst(stream, first); err != nil {
		return err
	}
	o, r := first.GetOptions(), requestOf(stream.Context())
	switch {
	case o == nil:
		return badParameter("first message does not contain the required options")
	case o.GetKeyName() == "":
		return badParameter("missing property 'keyName' in the options message")
	case o.GetKeyWrapAlgorithm() == "":
		return badParameter("missing property 'keyWrapAlgorithm' in the options message")
	}
	c, err := s.d.cryptoOf(r, o.GetComponentName())
	if err != nil {
		return err
	}
	do := sealing(r, c, sealed.Options{Key: o.GetKeyName(), Algorithm: o.GetKeyWrapAlgorithm(), Cipher: o.GetDataEncryptionCipher(),
		DecryptionKey: o.GetDecryptionKeyName(), OmitKey: o.GetOmitDecryptionKeyName()})
	return passStream(stream, do, first, &rtv1.EncryptRequest{}, func() rtv1.CryptoResponses { return &rtv1.EncryptResponse{} })
}

// DecryptAlpha1 opens what a stream brings. What was sent before an error is authentic, but not whole.
func (s *runtime) DecryptAlpha1(stream rtv1.Dapr_DecryptAlpha1Server) error {
	first := &rtv1.DecryptRequest{}
	if err := receiveFirst(stream, first); err != nil {
		return err
	}
	o, r := first.GetOptions(), requestOf(stream.Context())
	if o == nil {
		return badParameter("first message does not contain the required options")
	}
	c, err := s.d.cryptoOf(r, o.GetComponentName())
	if err != nil {
		return err
	}
	return passStream(stream, opening(r, c, o.GetKeyName()), first, &rtv1.DecryptRequest{}, func() rtv1.CryptoResponses { return &rtv1.DecryptResponse{} })
}

// receiveFirst does not wait for ever: a stream without options has nothing to show yet.
func receiveFirst(stream grpc.ServerStream, into any) error {
	got := make(chan error, 1)
	go func() { got <- stream.RecvMsg(into) }() // ends with the stream, if not before
	late := time.NewTimer(cryptoFirstMax)
	defer late.Stop()
	select {
	case err := <-got:
		if err != nil {
			return cryptoProblem("error receiving the first message: " + err.Error())
		}
		return nil
	case <-late.C:
		return badParameter("error waiting for first message: it did not come within %s", cryptoFirstMax)
	}
}

// passStream makes a document of the messages of a stream, and messages of what becomes of it.
func passStream(stream grpc.ServerStream, do crypt, first, next rtv1.CryptoRequests, reply func() rtv1.CryptoResponses) error {
	in := &payloads{stream: stream, next: next}
	err := in.take(first.GetPayload())
	if err == nil {
		err = do(&payloadSender{stream: stream, reply: reply}, in)
	}
	if err != nil {
		return cryptoProblem(err.Error())
	}
	return nil
}

// payloads reads what the messages of a stream bring. Their numbers must have no gap.
type payloads struct {
	stream grpc.ServerStream
	next   rtv1.CryptoRequests
	seq    uint64
	left   []byte
}

func (p *payloads) take(payload *commonv1.StreamPayload) error {
	if payload == nil {
		return nil
	}
	if payload.GetSeq() != p.seq {
		return fmt.Errorf("invalid sequence number received: %d (expected: %d)", payload.GetSeq(), p.seq)
	}
	p.seq++
	p.left = payload.GetData()
	return nil
}

// Read waits for the next message if it must.
func (p *payloads) Read(to []byte) (int, error) {
	for len(p.left) == 0 {
		p.next.Reset()
		if err := p.stream.RecvMsg(p.next); err != nil {
			return 0, err // io.EOF if there are no more
		}
		if p.next.HasOptions() {
			return 0, errors.New("options found in non-leading message")
		}
		if err := p.take(p.next.GetPayload()); err != nil {
			return 0, err
		}
	}
	n := copy(to, p.left)
	p.left = p.left[n:]
	return n, nil
}

// payloadSender sends what is written to it.
type payloadSender struct {
	stream grpc.ServerStream
	reply  func() rtv1.CryptoResponses
	seq    uint64
}

func (p *payloadSender) Write(data []byte) (n int, err error) {
	for len(data) > 0 {
		part := data[:min(len(data), cryptoPayloadMost)]
		m := p.reply()
		m.SetPayload(&commonv1.StreamPayload{Data: part, Seq: p.seq})
		if err := p.stream.SendMsg(m); err != nil {
			return n, fmt.Errorf("error sending message: %w", err)
		}
		p.seq++
		n += len(part)
		data = data[len(part):]
	}
	return n, nil
}
