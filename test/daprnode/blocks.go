package daprnode

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// blocks are what an application declares that uses every building block, with types of other people's servers where
// local development has them. DIR is the folder of the files; APP is the app id.
const blocks = `
orders state.redis redisHost=localhost:6379
events pubsub.redis redisHost=localhost:6379
locks lock.redis redisHost=localhost:6379
settings configuration.redis redisHost=localhost:6379
vault secretstores.local.file secretsFile=DIR/secrets.json
keys crypto.dapr.localstorage path=DIR/keys
model conversation.echo
files bindings.localstorage rootPath=DIR/files
queue bindings.rabbitmq host=amqp://localhost:5672 queueName=APP
tick bindings.cron schedule=@every=1s
`

// blocksMax is how long such an application may run.
const blocksMax = 2 * time.Minute

// Blocks runs a program with quipu run, as an application on APP_PORT that uses every building block, and fails unless it
// ends well and its last word is "ok". It may write configuration at QUIPU_NODE, and finds the folder of its files in
// BLOCKS_DIR.
func (p *Program) Blocks(app, protocol, dir string, command ...string) {
	p.t.Helper()
	files := p.t.TempDir()
	p.writeBlocks(app, files)
	ctx, cancel := context.WithTimeout(p.t.Context(), blocksMax)
	defer cancel()
	args := []string{"--node", p.URL(), "run", "--app-id", app, "--app-port", freePort(p.t), "--app-protocol", protocol, "--resources-path", filepath.Join(files, "resources"), "--"}
	cmd := exec.CommandContext(ctx, p.bin, append(args, command...)...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "QUIPU_NODE="+p.URL(), "BLOCKS_DIR="+files)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it ends its application, too
	cmd.WaitDelay = drainMax
	var said, notes bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &notes
	if err := cmd.Run(); err != nil || !strings.HasSuffix(strings.TrimSpace(said.String()), "ok") {
		p.t.Errorf("%s: %v\n%s%s", strings.Join(command, " "), err, said.String(), notes.String())
	}
}

// writeBlocks makes the resource files, a secret and a key.
func (p *Program) writeBlocks(app, dir string) {
	p.t.Helper()
	names := strings.NewReplacer("DIR", dir, "APP", app)
	for _, line := range strings.Split(strings.TrimSpace(blocks), "\n") {
		words := strings.Fields(names.Replace(line))
		text := fmt.Sprintf("apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: %s\nspec:\n  type: %s\n  version: v1\n  metadata:\n", words[0], words[1])
		for _, word := range words[2:] {
			name, value, _ := strings.Cut(word, "=")
			text += fmt.Sprintf("  - name: %s\n    value: %q\n", name, strings.ReplaceAll(value, "=", " "))
		}
		p.write(filepath.Join(dir, "resources", words[0]+".yaml"), []byte(text))
	}
	p.write(filepath.Join(dir, "secrets.json"), []byte(`{"db":{"user":"ada","password":"lovelace"}}`))
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		p.t.Fatal(err)
	}
	p.write(filepath.Join(dir, "keys", "rsa.pem"), pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
}

func (p *Program) write(path string, text []byte) {
	p.t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		err = os.WriteFile(path, text, 0o600)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}
