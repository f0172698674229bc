package bindings

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/component"
)

// Limits of a reply's body; over its limit a reply is an error.
const (
	replyBytesDefault = 100 << 20
	replyBytesMax     = 1 << 30
	pemBytesMax       = 1 << 20
)

var methods = []string{opCreate, "get", "head", "post", "put", "patch", "delete", "options", "trace"}

// caller is a bindings.http.
type caller struct {
	url           string
	client        *http.Client
	own           *http.Transport // closed with the component; nil if the client is the host's
	timeout       time.Duration   // 0 leaves it to the context
	bytesMax      int64
	errorIfNot2XX bool
	token, header string
}

// NewHTTP makes a bindings.http. Metadata: url, responseTimeout, maxResponseBodySize, errorIfNot2XX, securityToken,
// securityTokenHeader, and MTLSRootCA, MTLSClientCert, MTLSClientKey, each PEM or a file of it, and MTLSRenegotiation.
func NewHTTP(_ context.Context, h component.Host, s component.Spec) (any, error) {
	m := s.Metadata
	c := &caller{client: h.Client, bytesMax: replyBytesDefault, token: m.Get("securityToken"), header: m.Get("securityTokenHeader")}
	var err error
	if c.url, err = m.Need("url"); err != nil {
		return nil, err
	}
	if c.errorIfNot2XX, err = m.Bool(true, "errorIfNot2XX"); err != nil {
		return nil, err
	}
	if c.timeout, err = m.Duration(0, "responseTimeout"); err != nil {
		return nil, err
	}
	if c.bytesMax, err = bodyLimit(m.Get("maxResponseBodySize")); err != nil {
		return nil, err
	}
	config, err := clientTLS(h, m)
	if err != nil {
		return nil, err
	}
	if config != nil {
		c.own = newTransport(h.Client, config)
		c.client = &http.Client{Transport: c.own}
	}
	if c.client == nil {
		c.client = http.DefaultClient
	}
	return c, nil
}

// bodyLimit reads a size; 0 and less, which is no limit in Dapr, is the most there is here.
func bodyLimit(text string) (int64, error) {
	if text == "" {
		return replyBytesDefault, nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n <= 0 {
		return replyBytesMax, nil
	}
	var size quipu.Size
	if err := size.UnmarshalText([]byte(text)); err != nil {
		return 0, fmt.Errorf("metadata maxResponseBodySize: %w", err)
	}
	if size <= 0 || size > replyBytesMax {
		size = replyBytesMax
	}
	return int64(size), nil
}

// newTransport is the host's with a TLS configuration of its own.
func newTransport(host *http.Client, config *tls.Config) *http.Transport {
	base, ok := http.DefaultTransport.(*http.Transport)
	if host != nil {
		if theirs, is := host.Transport.(*http.Transport); is {
			base, ok = theirs, true
		}
	}
	if !ok {
		base = &http.Transport{Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 15 * time.Second}).DialContext}
	}
	own := base.Clone()
	own.TLSClientConfig = config
	return own
}

// clientTLS is what the metadata says of certificates; nil if it says nothing.
func clientTLS(h component.Host, m component.Metadata) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	root, cert, key := m.Get("MTLSRootCA"), m.Get("MTLSClientCert"), m.Get("MTLSClientKey")
	renegotiation := m.Get("MTLSRenegotiation")
	if root == "" && cert == "" && key == "" && renegotiation == "" {
		return nil, nil
	}
	if (cert == "") != (key == "") {
		return nil, errors.New("metadata MTLSClientCert and MTLSClientKey are of use only together")
	}
	if root != "" {
		text, err := pemOf(h, "MTLSRootCA", root)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, errors.New("metadata MTLSRootCA has no certificate")
		}
	}
	if cert != "" {
		pair, err := keyPair(h, cert, key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	var err error
	config.Renegotiation, err = renegotiationOf(renegotiation)
	return config, err
}

func keyPair(h component.Host, cert, key string) (tls.Certificate, error) {
	certPEM, err := pemOf(h, "MTLSClientCert", cert)
	if err != nil {
		return tls.Certificate{}, err
	}
	keyPEM, err := pemOf(h, "MTLSClientKey", key)
	if err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return pair, fmt.Errorf("metadata MTLSClientCert and MTLSClientKey: %w", err)
	}
	return pair, nil
}

func renegotiationOf(name string) (tls.RenegotiationSupport, error) {
	switch name {
	case "", "RenegotiateNever":
		return tls.RenegotiateNever, nil
	case "RenegotiateOnceAsClient":
		return tls.RenegotiateOnceAsClient, nil
	case "RenegotiateFreelyAsClient":
		return tls.RenegotiateFreelyAsClient, nil
	}
	return 0, fmt.Errorf("metadata MTLSRenegotiation is %.40q, but must be RenegotiateNever, RenegotiateOnceAsClient or RenegotiateFreelyAsClient", name)
}

// pemOf is a value that is PEM, or that of the file it names. A value that is neither is not told: it may be a key.
func pemOf(h component.Host, name, value string) ([]byte, error) {
	if block, _ := pem.Decode([]byte(value)); block != nil {
		return []byte(value), nil
	}
	text, err := h.ReadFile(value, pemBytesMax)
	if err != nil {
		return nil, fmt.Errorf("metadata %s is neither PEM nor a file that can be read", name)
	}
	return text, nil
}

// Operations is component.OutputBinding.
func (c *caller) Operations() []string { return slices.Clone(methods) }

// Close gives connections back.
func (c *caller) Close() error {
	if c.own != nil {
		c.own.CloseIdleConnections()
	}
	return nil
}

// Invoke is component.OutputBinding. A reply whose status is an error comes with that error.
func (c *caller) Invoke(ctx context.Context, r component.BindingRequest) (component.BindingReply, error) {
	reply, err := c.invoke(ctx, r)
	return reply, component.Failed("binding.http", err)
}

func (c *caller) invoke(ctx context.Context, r component.BindingRequest) (component.BindingReply, error) {
	strict, err := component.Metadata{"errorIfNot2XX": r.Metadata["errorIfNot2XX"]}.Bool(c.errorIfNot2XX, "errorIfNot2XX")
	if err != nil {
		return component.BindingReply{}, err
	}
	if c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	request, err := c.request(ctx, r)
	if err != nil {
		return component.BindingReply{}, err
	}
	response, err := c.client.Do(request)
	if err != nil {
		return component.BindingReply{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, c.bytesMax+1))
	if err != nil {
		return component.BindingReply{}, fmt.Errorf("read the reply: %w", err)
	}
	if int64(len(body)) > c.bytesMax {
		return component.BindingReply{}, fmt.Errorf("the reply has more than %d bytes; maxResponseBodySize says how many it may have", c.bytesMax)
	}
	reply := component.BindingReply{Data: body, Metadata: replyMetadata(response)}
	if strict && response.StatusCode/100 != 2 {
		err = fmt.Errorf("received status code %d", response.StatusCode)
	}
	return reply, err
}

func (c *caller) request(ctx context.Context, r component.BindingRequest) (*http.Request, error) {
	operation := strings.ToLower(r.Operation)
	if !slices.Contains(methods, operation) {
		return nil, unsupported("bindings.http", r.Operation)
	}
	method := strings.ToUpper(operation)
	if operation == opCreate {
		method = http.MethodPost
	}
	url := c.url
	if path := r.Metadata["path"]; path != "" {
		url = strings.TrimRight(url, "/") + "/" + strings.TrimLeft(path, "/")
	}
	var body io.Reader
	withBody := method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch
	if withBody {
		body = bytes.NewReader(r.Data)
	}
	request, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, err
	}
	c.setHeaders(request.Header, r.Metadata, withBody)
	return request, nil
}

// setHeaders makes headers of what starts with a capital letter, and of the trace.
func (c *caller) setHeaders(header http.Header, metadata map[string]string, withBody bool) {
	if withBody {
		header.Set("Content-Type", "application/json; charset=utf-8")
	}
	header.Set("Accept", "application/json; charset=utf-8")
	if c.token != "" && c.header != "" {
		header.Set(c.header, c.token)
	}
	for name, value := range metadata {
		if name != "" && name[0] >= 'A' && name[0] <= 'Z' {
			header.Set(name, value)
		}
	}
	for _, name := range []string{"traceparent", "tracestate", "baggage"} {
		if value := metadata[name]; value != "" {
			header.Set(name, value)
		}
	}
}

func replyMetadata(r *http.Response) map[string]string {
	metadata := make(map[string]string, len(r.Header)+2)
	metadata["statusCode"] = strconv.Itoa(r.StatusCode)
	metadata["status"] = r.Status
	for name, values := range r.Header {
		metadata[name] = strings.Join(values, ", ")
	}
	return metadata
}
