package main

import (
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quipu-run/quipu/internal/script"
)

// buildCommand is for tests of functions in TypeScript: they run as what a deploy would make of them.
func (c *cli) buildCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "build FILE... --out DIR", Short: "Build programs in TypeScript for Node, as a deploy does", Args: cobra.MinimumNArgs(1)}
	out := cmd.Flags().String("out", "", "the folder for FILE.mjs and its source map")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if *out == "" {
			return usage("build needs --out DIR")
		}
		for _, file := range args {
			to := filepath.Join(*out, strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))+".mjs")
			app := "."
			if !filepath.IsLocal(file) {
				app, file = filepath.Split(file)
			}
			if err := script.Bundle(app, file, to); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}
