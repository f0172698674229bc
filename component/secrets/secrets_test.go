package secrets

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quipu-run/quipu/internal/component"
)

// env is that of the application.
var env = map[string]string{"SHOP_DB": "pw", "SHOP_EMPTY": "", "APP_API_TOKEN": "never", "DAPR_API_TOKEN": "never", "QUIPU_TOKEN": "never"}

func open(t *testing.T, kind, dir string, m component.Metadata) component.SecretStore {
	t.Helper()
	is, err := Factories()[kind](context.Background(), component.Host{Dir: dir, Env: env}, component.Spec{Name: "s", Type: kind, Metadata: m})
	if err != nil {
		t.Fatal(err)
	}
	return is.(component.SecretStore)
}

func write(t *testing.T, dir, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "secrets.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, s component.SecretStore, name string, want map[string]string) {
	t.Helper()
	got, err := s.Secret(context.Background(), name, nil)
	if err != nil || !maps.Equal(got, want) || (got == nil) != (want == nil) {
		t.Errorf("secret %q is %v, %v; want %v", name, got, err, want)
	}
}

func TestTheEnvironmentIsASecretStoreWithoutWhatGivesAccess(t *testing.T) {
	all := open(t, "secretstores.local.env", "", nil)
	expect(t, all, "SHOP_DB", map[string]string{"SHOP_DB": "pw"})
	expect(t, all, "SHOP_EMPTY", map[string]string{"SHOP_EMPTY": ""})
	expect(t, all, "SHOP_MISSING", nil)
	expect(t, all, "", nil)
	for _, ours := range []string{"APP_API_TOKEN", "DAPR_API_TOKEN", "QUIPU_TOKEN"} {
		expect(t, all, ours, nil)
	}
	expect(t, open(t, "secretstores.local.env", "", component.Metadata{"prefix": "QUIPU_"}), "TOKEN", nil)

	shop := open(t, "secretstores.local.env", "", component.Metadata{"Prefix": "SHOP_"})
	expect(t, shop, "DB", map[string]string{"DB": "pw"})
	expect(t, shop, "SHOP_DB", nil)
	secrets, err := shop.Secrets(context.Background(), nil)
	if err != nil || len(secrets) != 2 || secrets["DB"]["DB"] != "pw" {
		t.Errorf("all of the prefix: %v, %v", secrets, err)
	}
	everything, _ := all.Secrets(context.Background(), nil)
	for name := range everything {
		if isOurs(name) {
			t.Errorf("%s is listed", name)
		}
	}
}

const nested = `{"db": {"host": "h", "ports": [1, 2.50]}, "plain": "p", "on": true, "none": null}`

func TestAFileIsFlattenedWithASeparator(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, nested)
	s := open(t, "secretstores.local.file", dir, component.Metadata{"secretsFile": "secrets.json"})
	for name, value := range map[string]string{"db:host": "h", "db:ports:0": "1", "db:ports:1": "2.50", "plain": "p", "on": "true", "none": ""} {
		expect(t, s, name, map[string]string{name: value})
	}
	expect(t, s, "db", nil)
	if all, err := s.Secrets(context.Background(), nil); err != nil || len(all) != 6 {
		t.Errorf("all: %v, %v", all, err)
	}
	dotted := open(t, "secretstores.local.file", dir, component.Metadata{"secretsFile": "secrets.json", "nestedSeparator": "."})
	expect(t, dotted, "db.host", map[string]string{"db.host": "h"})
}

func TestAMultiValuedFileKeepsTheValuesOfASecretTogether(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, nested)
	s := open(t, "secretstores.local.file", dir, component.Metadata{"secretsFile": "secrets.json", "multiValued": "true"})
	expect(t, s, "db", map[string]string{"host": "h", "ports:0": "1", "ports:1": "2.50"})
	expect(t, s, "plain", map[string]string{"plain": "p"})
	expect(t, s, "on", nil)
	expect(t, s, "db:host", nil)
}

func TestAChangedFileIsReadAgainAndABrokenOneIsToldWithoutItsContents(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, `{"a": "1"}`)
	s := open(t, "secretstores.local.file", dir, component.Metadata{"secretsFile": filepath.Join(dir, "secrets.json")})
	expect(t, s, "a", map[string]string{"a": "1"})
	write(t, dir, `{"a": "2"}`)
	later := time.Now().Add(time.Minute)
	if err := os.Chtimes(filepath.Join(dir, "secrets.json"), later, later); err != nil {
		t.Fatal(err)
	}
	expect(t, s, "a", map[string]string{"a": "2"})
	write(t, dir, `{"a": "hunter2" hunter2}`)
	if _, err := s.Secret(context.Background(), "a", nil); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a broken file: %v", err)
	}
	write(t, dir, `{"a": "3"}`)
	expect(t, s, "a", map[string]string{"a": "3"})
}

func TestAFileThatCannotBeASecretStoreIsRefused(t *testing.T) {
	dir := t.TempDir()
	deep := strings.Repeat(`{"a":`, depthMax+1) + "1" + strings.Repeat("}", depthMax+1)
	for text, why := range map[string]string{"": "no JSON", "null": "no JSON", "[1]": "no JSON", `{"a": 1} x`: "follows", `{"a:b": 1, "a": {"b": 2}}`: "two values", deep: "nested"} {
		write(t, dir, text)
		_, err := NewFile(context.Background(), component.Host{Dir: dir}, component.Spec{Metadata: component.Metadata{"secretsFile": "secrets.json"}})
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%.20q: %v; want %q", text, err, why)
		}
	}
	for _, m := range []component.Metadata{nil, {"secretsFile": "missing.json"}, {"secretsFile": "secrets.json", "multiValued": "perhaps"}} {
		if _, err := NewFile(context.Background(), component.Host{Dir: dir}, component.Spec{Metadata: m}); err == nil {
			t.Errorf("%v was accepted", m)
		}
	}
}
