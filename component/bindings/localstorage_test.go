package bindings

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/quipu-run/quipu/internal/component"
)

func named(name string) map[string]string { return map[string]string{"fileName": name} }

func openFolder(t *testing.T) (any, string) {
	dir := t.TempDir()
	b := load(t, component.Host{Dir: dir}, "bindings.localstorage", component.Metadata{"rootPath": "files"})
	t.Cleanup(func() {
		if err := b.(interface{ Close() error }).Close(); err != nil {
			t.Error(err)
		}
	})
	return b, filepath.Join(dir, "files")
}

func TestFilesAreCreatedReadListedAndDeleted(t *testing.T) {
	b, root := openFolder(t)
	if reply, err := invoke(b, "list", "", nil); err != nil || string(reply.Data) != "[]" {
		t.Errorf("an empty folder lists %s, %v", reply.Data, err)
	}
	for name, c := range map[string]struct{ data, want string }{
		"a.txt":       {"text!", "text!"},
		"deep/b.json": {`{"n":1}`, `{"n":1}`},
		"quoted":      {`"in quotes!"`, "in quotes!"},
		"base64":      {"aGVsbG8gZmlsZQ==", "hello file"},
	} {
		reply, err := invoke(b, "create", c.data, named(name))
		if err != nil || string(reply.Data) != `{"fileName":"`+name+`"}` {
			t.Errorf("create %s: %s, %v", name, reply.Data, err)
		}
		if reply, err := invoke(b, "get", "", named(name)); err != nil || string(reply.Data) != c.want {
			t.Errorf("get %s: %q, %v", name, reply.Data, err)
		}
	}
	reply, err := invoke(b, "list", "", named("deep"))
	if want := `["` + filepath.Join(root, "deep", "b.json") + `"]`; err != nil || string(reply.Data) != want {
		t.Errorf("list: %s, %v; want %s", reply.Data, err, want)
	}
	if _, err := invoke(b, "delete", "", named("a.txt")); err != nil {
		t.Error(err)
	}
	if _, err := invoke(b, "get", "", named("a.txt")); err == nil || !strings.Contains(err.Error(), "file not found") {
		t.Errorf("a deleted file: %v", err)
	}
	for operation, name := range map[string]string{"get": "deep", "list": "quoted", "delete": "", "rename": "quoted"} {
		if _, err := invoke(b, operation, "", named(name)); err == nil {
			t.Errorf("%s of %q was done", operation, name)
		}
	}
}

func TestAFileWithoutANameGetsOneAndIsWrittenWhole(t *testing.T) {
	b, root := openFolder(t)
	reply, err := invoke(b, "create", "new?", nil)
	var named struct{ FileName string }
	if err != nil || json.Unmarshal(reply.Data, &named) != nil || named.FileName == "" {
		t.Fatalf("%s, %v", reply.Data, err)
	}
	if got, err := os.ReadFile(filepath.Join(root, named.FileName)); err != nil || string(got) != "new?" {
		t.Errorf("the file has %q, %v", got, err)
	}
	entries, err := os.ReadDir(root)
	if err != nil || len(entries) != 1 {
		t.Errorf("besides the file there is %v, %v", entries, err)
	}
}

func TestNoNameAndNoLinkLeadsOutOfTheFolder(t *testing.T) {
	b, root := openFolder(t)
	outside := filepath.Join(filepath.Dir(root), "outside.txt")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Dir(root), filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"../outside.txt", "/../../outside.txt", "link/outside.txt", outside} {
		if reply, err := invoke(b, "get", "", named(name)); err == nil {
			t.Errorf("get %s answers %q", name, reply.Data)
		}
	}
	if _, err := invoke(b, "create", "over?", named("link/outside.txt")); err == nil {
		t.Error("a file was written through a link")
	}
	if _, err := invoke(b, "create", "inside?", named("../outside.txt")); err != nil {
		t.Errorf("as in Dapr the name is one in the folder: %v", err)
	}
	if got, err := os.ReadFile(outside); err != nil || string(got) != "secret" {
		t.Errorf("the file outside has %q, %v", got, err)
	}
}

func TestPlacesWhereNobodyMeansToHaveFilesAreRefused(t *testing.T) {
	for _, place := range []string{"/proc", "/sys/fs", "/var/run/secrets/x", "/tmp/../proc/1"} {
		refused(t, "bindings.localstorage", component.Metadata{"rootPath": place}, "not allowed")
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/proc", link); err != nil {
		t.Fatal(err)
	}
	refused(t, "bindings.localstorage", component.Metadata{"rootPath": filepath.Join(link, "new")}, "not allowed")
	refused(t, "bindings.localstorage", nil, "required")
	if !slices.Equal((&folder{}).Operations(), []string{"create", "get", "list", "delete"}) {
		t.Error("the operations are not those of Dapr")
	}
}
