package bindings

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/component"
)

// mirror answers what it was asked, and takes the status and the wait that the path asks for.
func mirror(t *testing.T) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/base/teapot":
			w.WriteHeader(http.StatusTeapot)
		case "/base/slow":
			<-r.Context().Done()
			return
		case "/base/long":
			_, _ = io.WriteString(w, strings.Repeat("x", 100)) // a client that goes away is the test's business
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.Header().Add("X-Many", "1")
		w.Header().Add("X-Many", "2")
		_, _ = io.WriteString(w, r.Method+" "+r.URL.Path+" "+r.Header.Get("Content-Type")+" "+string(body)+" "+r.Header.Get("X-Token")+r.Header.Get("Traceparent"))
	}))
	t.Cleanup(s.Close)
	return s
}

func TestTheHTTPBindingMakesRequestsAsDaprDoes(t *testing.T) {
	b := load(t, component.Host{}, "bindings.http", component.Metadata{"url": mirror(t).URL + "/base/", "securityToken": "s3", "securityTokenHeader": "X-Token"})
	for operation, want := range map[string]string{
		"create": "POST /base/p application/json; charset=utf-8 {} s3tp",
		"put":    "PUT /base/p application/json; charset=utf-8 {} s3tp",
		"get":    "GET /base/p   s3tp",
		"delete": "DELETE /base/p   s3tp",
		"head":   "",
	} {
		reply, err := invoke(b, operation, "{}", map[string]string{"path": "/p", "traceparent": "tp", "small": "no header"})
		if err != nil || string(reply.Data) != want {
			t.Errorf("%s: %q, %v; want %q", operation, reply.Data, err, want)
		}
		if reply.Metadata["statusCode"] != "200" || reply.Metadata["status"] != "200 OK" || reply.Metadata["X-Many"] != "1, 2" {
			t.Errorf("%s: reply metadata %v", operation, reply.Metadata)
		}
	}
	reply, err := invoke(b, "post", "x", map[string]string{"Content-Type": "text/x", "X-Token": "mine"})
	if err != nil || string(reply.Data) != "POST /base/ text/x x mine" {
		t.Errorf("with headers: %q, %v", reply.Data, err)
	}
	if _, err := invoke(b, "connect", "", nil); err == nil {
		t.Error("CONNECT was sent")
	}
	if n := len(b.(component.OutputBinding).Operations()); n != 9 {
		t.Errorf("there are %d operations", n)
	}
}

func TestAStatusThatIsNoSuccessIsAnErrorWithItsReplyUnlessItMayBe(t *testing.T) {
	url := mirror(t).URL + "/base"
	strict := load(t, component.Host{}, "bindings.http", component.Metadata{"url": url})
	lax := load(t, component.Host{}, "bindings.http", component.Metadata{"url": url, "errorIfNot2XX": "false"})
	for _, c := range []struct {
		b    any
		say  string
		fail bool
	}{{strict, "", true}, {strict, "false", false}, {lax, "", false}, {lax, "true", true}} {
		reply, err := invoke(c.b, "get", "", map[string]string{"path": "teapot", "errorIfNot2XX": c.say})
		if (err != nil) != c.fail || reply.Metadata["statusCode"] != "418" || !strings.HasPrefix(string(reply.Data), "GET") {
			t.Errorf("%q: %+v, %v", c.say, reply, err)
		}
		if c.fail && (quipu.CodeOf(err) != quipu.CodeOutside || quipu.AsError(err).Text != "received status code 418") {
			t.Errorf("the error is %v", err)
		}
	}
}

func TestAReplyThatIsTooLongOrTooLateIsAnError(t *testing.T) {
	url := mirror(t).URL + "/base"
	short := load(t, component.Host{}, "bindings.http", component.Metadata{"url": url, "maxResponseBodySize": "99"})
	if reply, err := invoke(short, "get", "", map[string]string{"path": "long"}); err == nil {
		t.Errorf("got %d bytes", len(reply.Data))
	}
	enough := load(t, component.Host{}, "bindings.http", component.Metadata{"url": url, "maxResponseBodySize": "100"})
	if reply, err := invoke(enough, "get", "", map[string]string{"path": "long"}); err != nil || len(reply.Data) != 100 {
		t.Errorf("got %d bytes, %v", len(reply.Data), err)
	}
	hurried := load(t, component.Host{}, "bindings.http", component.Metadata{"url": url, "responseTimeout": "1ms"})
	if _, err := invoke(hurried, "get", "", map[string]string{"path": "slow"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a late reply: %v", err)
	}
	for text, want := range map[string]int64{"": replyBytesDefault, "10Ki": 10 << 10, "0": replyBytesMax, "-1": replyBytesMax, "9Gi": replyBytesMax} {
		if got, err := bodyLimit(text); err != nil || got != want {
			t.Errorf("maxResponseBodySize %q is %d, %v", text, got, err)
		}
	}
}

func TestTheHTTPBindingSpeaksMutualTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.TLS.PeerCertificates[0].Subject.String()+"hello")
	}))
	s.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	s.StartTLS()
	t.Cleanup(s.Close)
	dir := t.TempDir()
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	cert, key := clientPair(t)
	if err := os.WriteFile(filepath.Join(dir, "key.pem"), []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	m := component.Metadata{"url": s.URL, "MTLSRootCA": string(root), "MTLSClientCert": cert, "MTLSClientKey": "key.pem", "MTLSRenegotiation": "RenegotiateNever"}
	b := load(t, component.Host{Dir: dir}, "bindings.http", m)
	if reply, err := invoke(b, "get", "", nil); err != nil || string(reply.Data) != "hello" {
		t.Errorf("%q, %v", reply.Data, err)
	}
	if err := b.(io.Closer).Close(); err != nil {
		t.Error(err)
	}
	if _, err := invoke(load(t, component.Host{}, "bindings.http", component.Metadata{"url": s.URL}), "get", "", nil); err == nil {
		t.Error("a server that nobody trusts was trusted")
	}
}

func TestSettingsOfTheHTTPBindingThatCannotBeAreRefusedAndAKeyIsNotTold(t *testing.T) {
	cert, _ := clientPair(t)
	refused(t, "bindings.http", nil, "required")
	refused(t, "bindings.http", component.Metadata{"url": "x", "errorIfNot2XX": "perhaps"}, "true or false")
	refused(t, "bindings.http", component.Metadata{"url": "x", "responseTimeout": "soon"}, "duration")
	refused(t, "bindings.http", component.Metadata{"url": "x", "maxResponseBodySize": "big"}, "not a size")
	refused(t, "bindings.http", component.Metadata{"url": "x", "MTLSRenegotiation": "Always"}, "RenegotiateNever")
	refused(t, "bindings.http", component.Metadata{"url": "x", "MTLSClientKey": "k"}, "together")
	_, err := tryLoad(component.Host{}, "bindings.http", component.Metadata{"url": "x", "MTLSClientCert": cert, "MTLSClientKey": "hunter2"})
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a broken key: %v", err)
	}
}

func clientPair(t *testing.T) (cert, key string) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}
