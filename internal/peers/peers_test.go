package peers

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quipu-run/quipu"
)

// TestMain is also the node that is killed: it joins, says so, and waits.
func TestMain(m *testing.M) {
	if dir := os.Getenv("PEERS_TEST_NODE"); dir != "" {
		f, err := Open(dir)
		if err == nil {
			var node *Member
			if node, err = f.Join(); err == nil {
				err = errors.Join(node.Announce(Peer{App: "victim", HTTP: "127.0.0.1:1"}), os.Mkdir(node.Data(), 0o700))
			}
		}
		fmt.Println("joined", err)
		_, _ = io.Copy(io.Discard, os.Stdin) // until it is killed
		return
	}
	os.Exit(m.Run())
}

func folder(t *testing.T) *Folder {
	t.Helper()
	f, err := Open(filepath.Join(t.TempDir(), "peers"))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func join(t *testing.T, f *Folder, app, address string) *Member {
	t.Helper()
	m, err := f.Join()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Leave(); err != nil {
			t.Error(err)
		}
	})
	if err := m.Announce(Peer{App: app, HTTP: address, GRPC: address, Token: "secret"}); err != nil {
		t.Fatal(err)
	}
	return m
}

func homes(t *testing.T, f *Folder, app string) int {
	t.Helper()
	all, err := f.Find(app)
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func TestANodeIsFoundFromWhenItTellsWhatItHostsUntilItLeaves(t *testing.T) {
	f := folder(t)
	m, err := f.Join()
	if err != nil {
		t.Fatal(err)
	}
	if got := homes(t, f, ""); got != 0 {
		t.Errorf("a node that hosts nothing was found %d times", got)
	}
	if err := m.Announce(Peer{App: "shop", HTTP: "127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	other := join(t, f, "shop", "127.0.0.1:2")
	if got := homes(t, f, "shop"); got != 2 {
		t.Errorf("%d nodes with shop, want 2", got)
	}
	if err := errors.Join(os.Mkdir(m.Data(), 0o700), m.Leave()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(m.Data()); !os.IsNotExist(err) {
		t.Errorf("its data are still there: %v", err)
	}
	if all, err := f.Find("shop"); err != nil || len(all) != 1 || all[0].HTTP != "127.0.0.1:2" {
		t.Errorf("after one left: %v, %v", all, err)
	}
	if err := other.Announce(Peer{App: "renamed"}); err != nil {
		t.Fatal(err)
	}
	if homes(t, f, "shop") != 0 || homes(t, f, "renamed") != 1 {
		t.Error("what a node told last does not count")
	}
}

func TestWhatAKilledNodeLeftIsNotBelievedAndGoes(t *testing.T) {
	f := folder(t)
	victim := exec.Command(os.Args[0])
	victim.Env = append(os.Environ(), "PEERS_TEST_NODE="+f.dir)
	in, err := victim.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	said := make([]byte, 100)
	if n, err := out.Read(said); err != nil || string(said[:n]) != "joined <nil>\n" {
		t.Fatalf("%q, %v", said[:n], err)
	}
	if homes(t, f, "victim") != 1 {
		t.Error("it lives, and is not found")
	}
	if err := victim.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = victim.Wait() // it was killed
	f.Forget()
	if homes(t, f, "victim") != 0 {
		t.Error("it is dead, and found")
	}
	if left, err := os.ReadDir(f.dir); err != nil || len(left) != 0 {
		t.Errorf("it left %v, %v", left, err)
	}
}

func TestAFolderThatIsOpenToOthersIsRefused(t *testing.T) {
	open := filepath.Join(t.TempDir(), "open")
	if err := errors.Join(os.Mkdir(open, 0o700), os.Chmod(open, 0o755)); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{open, link} {
		if _, err := Open(dir); err == nil {
			t.Errorf("%s was taken", dir)
		}
	}
}

func TestFilesThatAreNoNodesAreLeftAlone(t *testing.T) {
	f := folder(t)
	join(t, f, "shop", "127.0.0.1:1")
	for name, text := range map[string]string{"notes": "mine", "torn.json": `{"app":"torn"`} {
		if err := os.WriteFile(filepath.Join(f.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if homes(t, f, "shop") != 1 || homes(t, f, "torn") != 0 {
		t.Error("a file of somebody else made a difference")
	}
	if _, err := os.Stat(filepath.Join(f.dir, "notes")); err != nil {
		t.Error(err)
	}
}

// peerNode answers as the door of a node does, over HTTP/2 as nodes speak with each other.
func peerNode(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func TestAnInvocationGoesToTheNodeOfItsApplicationOnce(t *testing.T) {
	f := folder(t)
	join(t, f, "shop", "127.0.0.1:1") // nothing listens there
	join(t, f, "shop", peerNode(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set(quipu.HeaderSession, "of another log")
		fmt.Fprintf(w, "%s %s %s %s %s %s", r.Method, r.URL, body, r.Header.Get("dapr-api-token"), r.Header.Get("dapr-caller-app-id"), r.Header.Get(HeaderForwarded))
	}))
	via := NewForwarder(f)
	defer via.Close()
	c := quipu.CallRequest{Function: "shop", Method: "PUT", Path: "/a%2Fb", RawQuery: "x=1", Body: strings.NewReader("data"), ContentLength: 4,
		Header: http.Header{"Dapr-Caller-App-Id": {"me"}, "Dapr-App-Id": {"shop"}}}
	reply, err := via.Invoke(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	got, err := io.ReadAll(reply.Body)
	if want := "PUT /v1.0/invoke/shop/method/a%2Fb?x=1 data secret me 1"; string(got) != want || err != nil {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
	if reply.Header.Get(quipu.HeaderSession) != "" {
		t.Error("a place in another node's log was passed on")
	}
	if _, err := via.Invoke(t.Context(), quipu.CallRequest{Function: "nobody"}); quipu.CodeOf(err) != quipu.CodeNoFunction {
		t.Errorf("an application that is nowhere: %v", err)
	}
}

func TestACallOfGRPCGoesThroughWithItsStatus(t *testing.T) {
	f := folder(t)
	join(t, f, "shop", peerNode(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		if r.URL.Path == "/pkg.Service/Refuse" {
			w.Header().Set("Grpc-Status", "7")
			return
		}
		_, _ = io.Copy(w, r.Body)
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
		w.Header().Set(http.TrailerPrefix+"App", r.Header.Get("dapr-app-id"))
	}))
	via := NewForwarder(f)
	defer via.Close()
	for method, want := range map[string]string{"/pkg.Service/Echo": "0", "/pkg.Service/Refuse": "7"} {
		sent := []byte("\x00\x00\x00\x00\x01x")
		reply, err := via.Invoke(t.Context(), quipu.CallRequest{Function: "shop", Method: "POST", Path: method, Body: bytes.NewReader(sent), ContentLength: -1,
			Header: http.Header{"Content-Type": {"application/grpc"}}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(reply.Body)
		reply.Body.Close()
		if err != nil || reply.Trailer.Get("Grpc-Status") != want {
			t.Errorf("%s: status %v, %v; want %s", method, reply.Trailer, err, want)
		}
		if want == "0" && (!bytes.Equal(got, sent) || reply.Trailer.Get("App") != "shop") {
			t.Errorf("%s: %q, %v", method, got, reply.Trailer)
		}
	}
}
