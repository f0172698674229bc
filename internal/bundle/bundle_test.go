package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
)

func TestWhatIsPackedComesBack(t *testing.T) {
	dir := folder(t, map[string]string{
		"quipu.yaml": "kind: Function\n", "hello/main.py": "print(1)\n", "hello/run.sh": "#!/bin/sh\n", "empty/": "",
	})
	must(t, os.Chmod(filepath.Join(dir, "hello/run.sh"), 0o700))
	must(t, os.Symlink("../quipu.yaml", filepath.Join(dir, "hello/spec")))

	out := t.TempDir()
	must(t, Unpack(bytes.NewReader(pack(t, dir)), out))

	for name, want := range map[string]string{"quipu.yaml": "kind: Function\n", "hello/main.py": "print(1)\n", "hello/spec": "kind: Function\n"} {
		if got, err := os.ReadFile(filepath.Join(out, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if info, err := os.Stat(filepath.Join(out, "empty")); err != nil || !info.IsDir() {
		t.Errorf("the empty folder is lost: %v", err)
	}
	if info, err := os.Stat(filepath.Join(out, "hello/run.sh")); err != nil || info.Mode()&0o100 == 0 {
		t.Errorf("run.sh lost its executable bit: %v", err)
	}
}

func TestSameFilesGiveTheSameBytes(t *testing.T) {
	files := map[string]string{"a/b": "1", "a.b": "2", "a-b": "3", "z": "4"}
	one, two := folder(t, files), folder(t, files)
	must(t, os.Chtimes(filepath.Join(two, "z"), time.Unix(1, 0), time.Unix(99, 0)))
	must(t, os.Chmod(filepath.Join(two, "a.b"), 0o600))
	if !bytes.Equal(pack(t, one), pack(t, two)) {
		t.Error("bundles of the same files differ")
	}
	must(t, os.WriteFile(filepath.Join(two, "z"), []byte("5"), 0o600))
	if bytes.Equal(pack(t, one), pack(t, two)) {
		t.Error("bundles of different files are the same")
	}
}

func TestIgnoredFilesStayOut(t *testing.T) {
	dir := folder(t, map[string]string{
		".quipu/data": "x", ".git/HEAD": "x", "fn/__pycache__/m.pyc": "x", "fn/node_modules/dep/i.js": "x",
		"fn/main.py": "in", "data.csv": "x", "fn/small.csv": "in", "out/bin": "x", "fn/out/bin": "in", "tmp": "in", "deep/tmp/f": "x",
		IgnoreFile: "# comment\n*.csv\n!small.csv\n/out/\ntmp/\n",
	})
	var names []string
	for _, h := range entries(t, pack(t, dir)) {
		names = append(names, h.Name)
	}
	got := strings.Join(names, " ")
	want := ".quipuignore deep/ fn/ fn/main.py fn/out/ fn/out/bin fn/small.csv tmp"
	if got != want {
		t.Errorf("packed\n %s\nwant\n %s", got, want)
	}
}

func TestPackRefusesWhatCannotBeBundled(t *testing.T) {
	cases := map[string]struct {
		make func(dir string) error
		code quipu.Code
		says string
	}{
		"a link to an absolute path": {link("/etc/passwd", "l"), quipu.CodeSource, `"l"`},
		"a link out of the folder":   {link("../other", "l"), quipu.CodeSource, `"../other"`},
		"a link up through a link":   {link("sub/..", "l"), quipu.CodeSource, `"sub/.."`},
		"a pipe":                     {func(dir string) error { return syscall.Mkfifo(filepath.Join(dir, "p"), 0o600) }, quipu.CodeSource, `"p"`},
		"a bad pattern":              {write(IgnoreFile, "ok\n[a\n"), quipu.CodeSource, IgnoreFile + ":2"},
		"more than the limit":        {sparse("big", BytesMax+1), quipu.CodeBundleSize, `"big"`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, c.make(dir))
			_, err := Pack(t.Context(), dir)
			refused(t, err, c.code, c.says)
		})
	}
	_, err := Pack(t.Context(), filepath.Join(t.TempDir(), "missing"))
	refused(t, err, quipu.CodeSource, "is not a folder")
}

func TestUnpackNeverLeavesTheFolder(t *testing.T) {
	file := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg} }
	lnk := func(name, to string) tar.Header {
		return tar.Header{Name: name, Linkname: to, Typeflag: tar.TypeSymlink}
	}
	cases := map[string][]tar.Header{
		"absolute path":                {file("/etc/x")},
		"dot dot":                      {file("../x")},
		"dot dot inside":               {file("a/../../x")},
		"backslash":                    {file(`..\x`)},
		"long path":                    {file(strings.Repeat("a/", pathBytesMax) + "b")},
		"absolute link":                {lnk("l", "/etc")},
		"link out":                     {lnk("a/l", "../../x")},
		"link out through a link":      {lnk("p/q/up", "../.."), lnk("l", "p/q/up/..")},
		"link behind a link":           {lnk("p/q/up", "../.."), lnk("p/q/up/y", "../..")},
		"file through a link":          {lnk("l", "sub"), file("l/x"), file("sub/y")},
		"hard link":                    {{Name: "h", Linkname: "/etc/passwd", Typeflag: tar.TypeLink}},
		"device":                       {{Name: "d", Typeflag: tar.TypeChar}},
		"the same file twice":          {file("a"), file("a")},
		"a file that is also a folder": {file("a"), file("a/b")},
	}
	for name, heads := range cases {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			dir := filepath.Join(parent, "in", "deep")
			must(t, os.MkdirAll(dir, 0o755))
			err := Unpack(archive(t, heads...), dir)
			refused(t, err, quipu.CodeSource, "")
			if left, _ := filepath.Glob(filepath.Join(parent, "*")); len(left) != 1 {
				t.Errorf("something was written outside: %v", left)
			}
		})
	}
}

func TestUnpackRefusesWhatIsNoBundle(t *testing.T) {
	whole := pack(t, folder(t, map[string]string{"a": strings.Repeat("text ", 1000)}))
	for name, bytesIn := range map[string][]byte{"nothing": nil, "text": []byte("hello"), "cut short": whole[:len(whole)/2]} {
		refused(t, Unpack(bytes.NewReader(bytesIn), t.TempDir()), quipu.CodeBadJSON, "")
		_ = name
	}
}

func TestUnpackStopsAtTheLimits(t *testing.T) {
	t.Run("one file that says it is huge", func(t *testing.T) {
		refused(t, Unpack(archive(t, tar.Header{Name: "a", Typeflag: tar.TypeReg, Size: BytesMax + 1}), t.TempDir()), quipu.CodeBundleSize, "")
	})
	t.Run("a small bundle of endless zeros", func(t *testing.T) {
		var b bytes.Buffer
		zip := gzip.NewWriter(&b)
		w := tar.NewWriter(zip)
		for _, name := range []string{"a", "b", "c"} {
			must(t, w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Size: BytesMax / 2}))
			_, err := io.CopyN(w, zeros{}, BytesMax/2)
			must(t, err)
		}
		must(t, w.Close())
		must(t, zip.Close())
		refused(t, Unpack(&b, t.TempDir()), quipu.CodeBundleSize, "")
	})
}

// helpers

func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		full := filepath.Join(dir, name)
		if strings.HasSuffix(name, "/") {
			must(t, os.MkdirAll(full, 0o755))
			continue
		}
		must(t, os.MkdirAll(filepath.Dir(full), 0o755))
		must(t, os.WriteFile(full, []byte(text), 0o644))
	}
	return dir
}

func link(target, name string) func(string) error {
	return func(dir string) error { return os.Symlink(target, filepath.Join(dir, name)) }
}

func write(name, text string) func(string) error {
	return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644) }
}

func sparse(name string, size int64) func(string) error {
	return func(dir string) error {
		full := filepath.Join(dir, name)
		if err := os.WriteFile(full, nil, 0o644); err != nil {
			return err
		}
		return os.Truncate(full, size)
	}
}

func pack(t *testing.T, dir string) []byte {
	t.Helper()
	b, err := Pack(t.Context(), dir)
	must(t, err)
	return b
}

func entries(t *testing.T, b []byte) []*tar.Header {
	t.Helper()
	zip, err := gzip.NewReader(bytes.NewReader(b))
	must(t, err)
	var heads []*tar.Header
	for r := tar.NewReader(zip); ; {
		h, err := r.Next()
		if err == io.EOF {
			return heads
		}
		must(t, err)
		heads = append(heads, h)
	}
}

// archive writes headers as they are, and no content: sizes may lie.
func archive(t *testing.T, heads ...tar.Header) io.Reader {
	t.Helper()
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	w := tar.NewWriter(zip)
	for _, h := range heads {
		must(t, w.WriteHeader(&h))
	}
	if heads[len(heads)-1].Size == 0 {
		must(t, w.Close())
	}
	must(t, zip.Close())
	return &b
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func refused(t *testing.T, err error, code quipu.Code, says string) {
	t.Helper()
	if quipu.CodeOf(err) != code || !strings.Contains(err.Error(), says) {
		t.Errorf("got %v, want %s naming %s", err, code, says)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
