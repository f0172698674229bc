package deploy

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/script"
)

// scriptOutput is where a function in TypeScript is built, beside its sources.
const scriptOutput = ".quipu-function.mjs"

// scriptCommand starts what was built.
var scriptCommand = []string{"node", "--enable-source-maps", scriptOutput}

// scriptEntry is the file in TypeScript that a function of Node without a command starts with, from the folder app; "" if it
// is none. A folder with an index.js is what it always was.
func scriptEntry(app, source string) string {
	full := filepath.Join(app, filepath.FromSlash(source))
	if strings.HasSuffix(source, ".ts") || strings.HasSuffix(source, ".mts") {
		return source
	}
	for _, name := range []string{"index.js", "index.ts", "main.ts"} {
		if info, err := os.Stat(filepath.Join(full, name)); err == nil && info.Mode().IsRegular() {
			if name == "index.js" {
				return ""
			}
			return filepath.ToSlash(filepath.Join(source, name))
		}
	}
	return ""
}

// buildScript builds a function in TypeScript, and does nothing for others.
func buildScript(f quipu.Function, app, dir string) error {
	if f.Spec.Runtime != "node" || !slices.Equal(f.Spec.Command, scriptCommand) {
		return nil
	}
	return script.Bundle(app, scriptEntry(app, f.Spec.Source), filepath.Join(dir, scriptOutput))
}
