package server

import (
	"bytes"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quipu-run/quipu"
)

// blobsOf counts the files of blobs.
func blobsOf(t *testing.T, data string) (n int) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(data, "blobs"), func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// inside is a node of which the test has the parts. Its collector does not come by itself while the test runs.
func inside(t *testing.T, data string) *Node {
	t.Helper()
	n, err := open(t.Context(), Config{Data: data})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *Node) collected(t *testing.T, atStart bool) int {
	t.Helper()
	c, err := n.collectOnce(t.Context(), atStart)
	if err != nil {
		t.Fatal(err)
	}
	return c.Deleted
}

const large = `
import lib
def handle(r):
    lib.state("POST", "shared/", '[{"key":"called","value":1}]')
    r.answer(200, "x" * 100000)
lib.serve(handle)`

func largeValue(i int) []byte { return bytes.Repeat(fmt.Appendf(nil, "%09d ", i), 10_000) }

func (ns *namespace) write(t *testing.T, key string, value []byte) {
	t.Helper()
	if err := ns.State("").Apply(t.Context(), quipu.StoreShared, []quipu.Change{{Key: key, Value: value}}); err != nil {
		t.Fatal(err)
	}
}

// callOnce calls under a key, so that all but the first get the reply that was kept.
func (n *Node) callOnce(t *testing.T) {
	t.Helper()
	ask("POST", "http://"+n.info.HTTP+"/f/", "", quipu.HeaderIdempotency, "once").want(t, 200, strings.Repeat("x", 100_000))
}

// Values, replies under a key and bundles are all that refers to blobs.
func TestWhatNothingRefersToGoesAndTheRestStays(t *testing.T) {
	data := t.TempDir()
	n := inside(t, data)
	ns, err := n.namespace(DefaultNamespace)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		ns.write(t, "k", largeValue(i))
	}
	ns.write(t, "small again", largeValue(100))
	ns.write(t, "small again", []byte("1"))
	for _, version := range []string{"", "# another\n"} {
		if _, err := ns.Deploy(t.Context(), "app", files{"quipu.yaml": function("f", "f.py", "python", "atomic: true"), "f.py": version + large}.pack(t)); err != nil {
			t.Fatal(err)
		}
	}
	n.callOnce(t)
	if deleted := n.collected(t, false); deleted != 0 {
		t.Errorf("%d were deleted that somebody may be reading", deleted)
	}
	before := blobsOf(t, data)
	if err := n.close(); err != nil {
		t.Fatal(err)
	}

	n = inside(t, data)
	defer func() {
		if err := n.close(); err != nil {
			t.Error(err)
		}
	}()
	if ns, err = n.namespace(DefaultNamespace); err != nil {
		t.Fatal(err)
	}
	ns.write(t, "k", largeValue(7))   // which was dead, and is put again before the collector comes
	ns.write(t, "new", largeValue(8)) // so was this
	if deleted := n.collected(t, true); deleted != 27+1+1 {
		t.Errorf("%d were deleted, want 27 of the old values, one that became small, and a bundle", deleted)
	}
	if left := blobsOf(t, data); left != before-29 || left != 5 {
		t.Errorf("%d files are left of %d", left, before)
	}
	for key, i := range map[string]int{"k": 7, "new": 8} {
		items, err := ns.State("").Get(t.Context(), quipu.StoreShared, key)
		if err != nil || !bytes.Equal(items[0].Value, largeValue(i)) {
			t.Errorf("%s: %v", key, err)
		}
	}
	n.callOnce(t) // the kept reply
	f, err := ns.Function("f")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.blobs.Get(f.Bundle); err != nil {
		t.Errorf("the bundle of what is deployed: %v", err)
	}
	if deleted := n.collected(t, false); deleted != 0 {
		t.Errorf("%d were deleted that somebody may be reading", deleted)
	}
}
