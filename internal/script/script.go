// Package script makes of a program in TypeScript, or in modern JavaScript, one file that Node runs, with esbuild: nothing
// needs to be installed besides Node.
//
// Types are taken away, not checked: that is the editor's and tsc's part. What is imported is put into the file, packages
// from node_modules included, if they lie in the folder of the application; modules of Node and addons in machine code stay
// outside. A map beside the file has Node, with --enable-source-maps, name the lines of the sources in stack traces.
//
// Nothing is kept; a build that was cut off by a crash is made again.
package script

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/evanw/esbuild/pkg/api"

	"github.com/quipu-run/quipu"
)

// Limits of what a failed build shows.
const (
	errorsShown = 10
	bytesShown  = 4 << 10
)

// banner gives packages in the form of CommonJS what they expect. They are global, so that a program may have its own.
const banner = `import{createRequire as __quipuRequire}from"node:module";globalThis.require??=__quipuRequire(import.meta.url);` +
	`globalThis.__filename??=import.meta.filename;globalThis.__dirname??=import.meta.dirname;`

// Bundle builds the file entry in the folder app into out, and its map beside it. CodeBuild, with what esbuild says.
func Bundle(app, entry, out string) error {
	app, out, err := absolute(app, out)
	if err != nil {
		return fmt.Errorf("build %s: %w", entry, err)
	}
	result := api.Build(api.BuildOptions{
		AbsWorkingDir: app, EntryPoints: []string{filepath.Join(app, entry)}, Outfile: out,
		Bundle: true, Platform: api.PlatformNode, Format: api.FormatESModule, Engines: []api.Engine{{Name: api.EngineNode, Version: "20"}},
		Loader:    map[string]api.Loader{".node": api.LoaderCopy},
		Sourcemap: api.SourceMapLinked, SourcesContent: api.SourcesContentExclude,
		Banner: map[string]string{"js": banner}, Metafile: true, LogLevel: api.LogLevelSilent,
	})
	if len(result.Errors) > 0 {
		return failure(entry, result.Errors)
	}
	if err := checkInside(entry, result.Metafile); err != nil {
		return err
	}
	for _, file := range result.OutputFiles {
		if err := errors.Join(os.MkdirAll(filepath.Dir(file.Path), 0o755), os.WriteFile(file.Path, file.Contents, 0o644)); err != nil {
			return fmt.Errorf("build %s: %w", entry, err)
		}
	}
	return nil
}

// absolute answers both as esbuild names what it reads.
func absolute(app, out string) (string, string, error) {
	app, appErr := filepath.Abs(app)
	if real, err := filepath.EvalSymlinks(app); err == nil {
		app = real
	}
	out, outErr := filepath.Abs(out)
	return app, out, errors.Join(appErr, outErr)
}

// failure shows the first errors as esbuild does: file, line, the line itself.
func failure(entry string, all []api.Message) error {
	shown := all[:min(len(all), errorsShown)]
	text := strings.Join(api.FormatMessages(shown, api.FormatMessagesOptions{Kind: api.ErrorMessage}), "")
	if len(text) > bytesShown {
		text = text[:bytesShown] + "…"
	}
	if more := len(all) - len(shown); more > 0 {
		text += fmt.Sprintf("\nand %d more", more)
	}
	return &quipu.Error{Code: quipu.CodeBuild, Op: "deploy", Text: fmt.Sprintf("%s cannot be built:\n%s", entry, strings.TrimSpace(text)),
		Hint: "nothing was deployed; mend it and deploy again. Packages come from build: [npm, ci] in quipu.yaml, or from !node_modules in .quipuignore"}
}

// checkInside refuses what only this machine has: a deploy elsewhere would not find it.
func checkInside(entry, metafile string) error {
	var meta struct {
		Inputs map[string]any `json:"inputs"`
	}
	if err := json.Unmarshal([]byte(metafile), &meta); err != nil {
		return fmt.Errorf("build %s: what esbuild has read: %w", entry, err)
	}
	for _, name := range slices.Sorted(maps.Keys(meta.Inputs)) {
		if strings.HasPrefix(name, "../") || filepath.IsAbs(name) {
			return &quipu.Error{Code: quipu.CodeBuild, Op: "deploy", Text: fmt.Sprintf("%s imports %s, which is outside of the application's folder", entry, filepath.Base(name)),
				Hint: "nothing was deployed. Packages come from build: [npm, ci] in quipu.yaml, or from !node_modules in .quipuignore"}
		}
	}
	return nil
}
