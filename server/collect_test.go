package server

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/blob"
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

// inside is a node of which the test has the parts. Its collector comes only when the test says so.
func inside(t *testing.T, data string) *Node {
	t.Helper()
	n, err := open(t.Context(), Config{Data: data})
	if err != nil {
		t.Fatal(err)
	}
	n.collector.close()
	return n
}

func (n *Node) collected(t *testing.T) blob.Collected {
	t.Helper()
	c, err := n.collectOnce(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (n *Node) end(t *testing.T) {
	t.Helper()
	if err := n.close(); err != nil {
		t.Error(err)
	}
}

func (n *Node) main(t *testing.T) *namespace {
	t.Helper()
	ns, err := n.namespace(DefaultNamespace)
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

func (ns *namespace) wantValue(t *testing.T, key string, want []byte) {
	t.Helper()
	items, err := ns.State("").Get(t.Context(), quipu.StoreShared, key)
	if err != nil || !bytes.Equal(items[0].Value, want) {
		t.Errorf("%s: %v", key, err)
	}
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

// Values, replies under a key, and bundles of revisions that are remembered are all that refers to blobs.
func TestWhatNothingRefersToGoesAndTheRestStays(t *testing.T) {
	data := t.TempDir()
	n := inside(t, data)
	ns := n.main(t)
	for i := range 30 {
		ns.write(t, "k", largeValue(i))
	}
	ns.write(t, "small again", largeValue(100))
	ns.write(t, "small again", []byte("1"))
	for i := range quipu.RevisionsKept + 1 { // of which the first is forgotten
		version := fmt.Sprintf("# %d\n", i)
		if _, err := ns.Deploy(t.Context(), "app", files{"quipu.yaml": function("f", "f.py", "python", "atomic: true"), "f.py": version + large}.pack(t), quipu.DeployOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	n.callOnce(t)
	if c := n.collected(t); c.Live != 2+quipu.RevisionsKept || c.Dead != 29+1+1 || c.Deleted != 0 {
		t.Errorf("%+v; live are a value, a reply and the bundles of what can be rolled back to, and for the others there is room", c)
	}
	n.end(t)

	n = inside(t, data)
	defer n.end(t)
	ns = n.main(t)
	ns.write(t, "k", largeValue(7))   // which was dead
	ns.write(t, "new", largeValue(8)) // so was this
	if c := n.collected(t); c.Live != 3+quipu.RevisionsKept || c.Dead != 30 {
		t.Errorf("%+v", c)
	}
	ns.churn(t, n, 20, func(int) {}) // for which the small ones make room
	if c := n.collected(t); c.Live != 4+quipu.RevisionsKept {
		t.Errorf("%+v", c)
	}
	if left := blobsOf(t, data); left > 4+quipu.RevisionsKept+3 {
		t.Errorf("%d files are left", left)
	}
	ns.wantValue(t, "k", largeValue(7))
	ns.wantValue(t, "new", largeValue(8))
	n.callOnce(t) // the kept reply
	f, err := ns.Function("f")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.blobs.Get(f.Bundle); err != nil {
		t.Errorf("the bundle of what is deployed: %v", err)
	}
}

// huge is a value of 10 MB.
func huge(i int) []byte { return bytes.Repeat(fmt.Appendf(nil, "%09d ", i), 1_000_000) }

// churn overwrites a key with large values, and collects whenever that is due, as the collector does.
func (ns *namespace) churn(t *testing.T, n *Node, times int, each func(int)) {
	t.Helper()
	for i := range times {
		ns.write(t, "churn", huge(i))
		select {
		case <-n.blobs.Due():
			n.collected(t)
		default:
		}
		each(i)
	}
}

func bytesOf(t *testing.T, dir string) (total int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		total += info.Size()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return total
}

// The folder takes up to twice what is live, and 64 MiB if that is more than what is live; and one value that came too much.
func TestLargeValuesTakeTwiceWhatIsLive(t *testing.T) {
	data := t.TempDir()
	n := inside(t, data)
	defer n.end(t)
	ns := n.main(t)
	const one = 10_000_000
	for _, keys := range []int{1, 9} {
		most, live := int64(0), int64(keys)*one
		for i := 1; i < keys; i++ {
			ns.write(t, fmt.Sprint("key", i), huge(1000+i))
		}
		n.collected(t)
		ns.churn(t, n, 40, func(int) { most = max(most, bytesOf(t, filepath.Join(data, "blobs"))) })
		t.Logf("live %d, most %d", live, most)
		if limit := live + max(live, 64<<20) + one; most > limit {
			t.Errorf("%d bytes were there for %d that are live, want up to %d", most, live, limit)
		}
		ns.wantValue(t, "churn", huge(39))
	}
}

// Nobody has to ask: the collector of a node comes by itself.
func TestChurnIsCollectedByItself(t *testing.T) {
	data := t.TempDir()
	n, err := open(t.Context(), Config{Data: data})
	if err != nil {
		t.Fatal(err)
	}
	defer n.end(t)
	ns := n.main(t)
	for i := 0; blobsOf(t, data) >= i; i++ { // until one is gone
		if i == 1000 {
			t.Fatal("nothing was collected")
		}
		ns.write(t, "churn", huge(i))
	}
}

// A transaction that began long ago finds the large values of its snapshot, and the ones that it has put.
func TestALongTransactionIsNotCollectedFrom(t *testing.T) {
	n := inside(t, t.TempDir())
	defer n.end(t)
	ns := n.main(t)
	ns.write(t, "old", huge(101))
	ns.write(t, "churn", huge(102))
	tx := ns.book.Begin(t.Context(), nil)
	reader := ns.book.Look()
	read := func(key string, want []byte) {
		t.Helper()
		items, err := ns.kv.Get(reader, "", quipu.StoreShared, []string{key})
		if err != nil || !bytes.Equal(items[0].Value, want) {
			t.Errorf("at the snapshot %s: %v", key, err)
		}
	}
	read("old", huge(101))
	if err := ns.kv.Change(tx, "", quipu.StoreShared, []quipu.Change{{Key: "late", Value: huge(103)}}); err != nil {
		t.Fatal(err)
	}
	ns.write(t, "old", []byte("small"))
	ns.churn(t, n, 20, func(int) {})
	n.collected(t)
	read("old", huge(101))
	read("churn", huge(102))
	if _, err := ns.book.Commit(t.Context(), tx); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(tx.Close(), reader.Close()); err != nil {
		t.Fatal(err)
	}
	ns.churn(t, n, 20, func(int) {})
	ns.wantValue(t, "late", huge(103))
	for _, gone := range [][]byte{huge(101), huge(5)} {
		if _, err := n.blobs.Get(blob.Ref(gone)); err == nil {
			t.Error("a value that nobody can read any more is still there")
		}
	}
}

// A backup has what was live when it began, however much is collected while it is written. What replays the log, which
// names values that are gone, needs none of them.
func TestABackupHasItsLargeValuesAndReplaysWithoutThoseThatAreGone(t *testing.T) {
	n := inside(t, t.TempDir())
	ns := n.main(t)
	ns.write(t, "live", huge(1))
	ns.churn(t, n, 20, func(int) {})
	var archive bytes.Buffer
	began := false
	err := n.Backup(t.Context(), writer(func(p []byte) (int, error) {
		if !began {
			began = true
			ns.write(t, "live", []byte("small"))
			ns.churn(t, n, 20, func(int) {})
			ns.write(t, "churn", []byte("small"))
			ns.write(t, "other", huge(50))
			ns.write(t, "other", huge(51))
			n.collected(t)
		}
		return archive.Write(p)
	}))
	if err != nil {
		t.Fatal(err)
	}
	n.end(t)
	data := filepath.Join(t.TempDir(), "restored")
	if _, err := Restore(t.Context(), Restoring{From: "-", Stdin: &archive, Data: data}); err != nil {
		t.Fatal(err)
	}
	n = inside(t, data)
	defer n.end(t)
	n.main(t).wantValue(t, "live", huge(1))
	n.main(t).wantValue(t, "churn", huge(19))
}

type writer func(p []byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// After a kill the views are rebuilt from the log, whose records name values that were collected. Of what was acknowledged
// nothing is missing, with either way to sync.
func TestAKillAfterACollectionLosesNothing(t *testing.T) {
	for _, sync := range []string{"always", "os"} {
		data := t.TempDir()
		n := inside(t, data)
		n.cfg.Sync = sync
		ns := n.main(t)
		ns.write(t, "live", huge(1))
		ns.churn(t, n, 20, func(int) {})
		n.collected(t)
		killed := filepath.Join(t.TempDir(), "killed") // what is on disk now, without the views
		for _, part := range []string{"log", "blobs"} {
			if err := os.CopyFS(filepath.Join(killed, part), os.DirFS(filepath.Join(data, part))); err != nil {
				t.Fatal(err)
			}
		}
		n.end(t)
		n = inside(t, killed)
		n.main(t).wantValue(t, "live", huge(1))
		n.main(t).wantValue(t, "churn", huge(19))
		n.collected(t)
		n.main(t).wantValue(t, "live", huge(1))
		n.end(t)
	}
}
