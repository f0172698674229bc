package main

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/examples"
)

// templates are complete applications. Go's have the ending .txt, so that they are no packages of this module.
//
//go:embed all:templates
var templates embed.FS

func templateNames() []string {
	entries, err := templates.ReadDir("templates")
	if err != nil {
		panic(err) // embedded
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return append(names, stepsPrefix+"python", stepsPrefix+"typescript")
}

// stepsPrefix starts the names of templates of durable functions, which are examples as well.
const stepsPrefix = "steps-"

// templateOf is where a template lies, and what to try first.
func templateOf(name string) (from fs.FS, root, try string) {
	if language, ok := strings.CutPrefix(name, stepsPrefix); ok {
		return examples.Steps, path.Join("steps", language), `curl http://%s/orders -d '{"id":"7","cents":100}'`
	}
	return templates, path.Join("templates", name), "curl http://%s/hello"
}

func (c *cli) newCommand() *cobra.Command {
	names := strings.Join(templateNames(), ", ")
	return &cobra.Command{Use: "new TEMPLATE DIR", Short: "Make an application from a template: " + names, Args: cobra.ExactArgs(2), RunE: func(_ *cobra.Command, args []string) error {
		from, root, try := templateOf(args[0])
		if _, err := fs.Stat(from, root); err != nil || !fs.ValidPath(args[0]) {
			return usage("there is no template %q; there are %s", args[0], names)
		}
		if err := emptyDir(args[1]); err != nil {
			return err
		}
		if err := copyTemplate(from, root, args[1]); err != nil {
			return err
		}
		_, err := fmt.Fprintf(c.out, "%s is ready; its README.md says more. Next:\n  quipu dev %s\n  "+try+"\n", args[1], args[1], addressDefault)
		return err
	}}
}

// emptyDir makes dir. It never writes over what is there.
func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 {
		return &quipu.Error{Code: quipu.CodeUsage, Text: fmt.Sprintf("%s is not empty", dir), Hint: "name a new folder"}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.MkdirAll(dir, 0o755)
}

func copyTemplate(from fs.FS, root, dir string) error {
	return fs.WalkDir(from, root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(dir, filepath.FromSlash(strings.TrimSuffix(strings.TrimPrefix(name, root), ".txt")))
		if d.IsDir() {
			return os.MkdirAll(to, 0o755)
		}
		text, err := fs.ReadFile(from, name)
		if err != nil {
			return err
		}
		return os.WriteFile(to, text, 0o644)
	})
}
