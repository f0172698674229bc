package deploy

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/quipu-run/quipu"
)

// goBinary is where the Go runtime puts what it builds, beside the sources.
const goBinary = ".quipu-function"

// language is what a runtime of the manifest stands for.
type language struct {
	tool string // program that the node needs; "" for none
	// command is the default for a source, which is a folder or a file; nil if there is none.
	command func(source string, folder bool) []string
}

var runtimes = map[string]language{
	"go":     {"go", func(string, bool) []string { return []string{"./" + goBinary} }},
	"python": {"python3", mainFile("python3", "main.py")},
	"node":   {"node", mainFile("node", "index.js")},
	"exec":   {"", ownFile},
}

func runtimeNames() string {
	return strings.Join(slices.Sorted(maps.Keys(runtimes)), ", ")
}

func mainFile(tool, file string) func(string, bool) []string {
	return func(source string, folder bool) []string {
		if !folder {
			return []string{tool, path.Base(source)}
		}
		return []string{tool, file}
	}
}

func ownFile(source string, folder bool) []string {
	if folder {
		return nil
	}
	return []string{"./" + path.Base(source)}
}

// workDir is where a function runs and is built: its source, or the folder of its source file.
func workDir(app, source string) (string, error) {
	full := filepath.Join(app, filepath.FromSlash(source))
	info, err := os.Stat(full)
	if err != nil {
		return "", fmt.Errorf("source %s: %w", source, err)
	}
	if !info.IsDir() {
		full = filepath.Dir(full)
	}
	return full, nil
}

// build makes the function in the unpacked application app ready to start. CodeNoTool, CodeBuild.
func (b *builds) build(ctx context.Context, f quipu.Function, app string) error {
	if tool := runtimes[f.Spec.Runtime].tool; tool != "" {
		if _, err := exec.LookPath(tool); err != nil {
			return &quipu.Error{Code: quipu.CodeNoTool, Op: "deploy",
				Text: fmt.Sprintf("function %s needs %s, which is not on the node's PATH", f.Name, tool),
				Hint: "install it, or use another runtime; quipu doctor lists them"}
		}
	}
	dir, err := workDir(app, f.Spec.Source)
	if err != nil {
		return err
	}
	if len(f.Spec.Build) > 0 {
		if err := b.run(ctx, f, dir, f.Spec.Build); err != nil {
			return err
		}
	}
	if f.Spec.Runtime != "go" {
		return buildScript(f, app, dir)
	}
	command, err := goBuild(app, dir, f.Spec.Source)
	if err != nil {
		return err
	}
	return b.run(ctx, f, dir, command)
}

// goBuild is the command that compiles a function: as part of its module, or, where the application has no
// go.mod, as a program of the files alone.
func goBuild(app, dir, source string) ([]string, error) {
	command := []string{"go", "build", "-trimpath", "-o", goBinary}
	if strings.HasSuffix(source, ".go") {
		return append(command, path.Base(source)), nil
	}
	for up := dir; ; up = filepath.Dir(up) {
		if _, err := os.Stat(filepath.Join(up, "go.mod")); err == nil {
			return append(command, "."), nil
		}
		if up == app || len(up) <= len(app) {
			break
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		if name := filepath.Base(file); !strings.HasSuffix(name, "_test.go") {
			command = append(command, name)
		}
	}
	return command, nil
}
