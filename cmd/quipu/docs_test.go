package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/quipu-run/quipu"
)

const errorsPage = "../../docs/reference/errors.md"

// The page of errors is made from Codes: QUIPU_UPDATE=1 go test ./cmd/quipu writes it.
func TestThePageOfErrorsIsThatOfTheCode(t *testing.T) {
	var b strings.Builder
	fmt.Fprint(&b, "# Errors\n\nA closed list: a code is never given another meaning. `quipu explain CODE` prints the same.\n\n| code | status | what | why | next |\n|---|---|---|---|---|\n")
	for _, code := range slices.Sorted(maps.Keys(quipu.Codes)) {
		p := pageOf(code)
		fmt.Fprintf(&b, "| %s | %d | %s | %s | %s |\n", p.Code, p.Status, p.Title, cell(p.Why), cell(p.Next))
	}
	if os.Getenv("QUIPU_UPDATE") != "" {
		if err := os.WriteFile(errorsPage, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(errorsPage)
	if err != nil || string(got) != b.String() {
		t.Errorf("%s is not made from Codes (%v): run QUIPU_UPDATE=1 go test ./cmd/quipu", errorsPage, err)
	}
}

func cell(s string) string { return strings.NewReplacer("||", `\|\|`, "|", `\|`).Replace(s) }

func TestEveryCommandIsInTheReference(t *testing.T) {
	text, err := os.ReadFile("../../docs/reference/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	var c cli
	for _, cmd := range c.root().Commands() {
		name, _, _ := strings.Cut(cmd.Use, " ")
		if !strings.Contains(string(text), "quipu "+name) {
			t.Errorf("quipu %s is not in docs/reference/cli.md", name)
		}
		eachCommand(cmd, func(sub *cobra.Command) {
			if sub.Short == "" {
				t.Errorf("%s says nothing of itself", sub.CommandPath())
			}
		})
	}
}

func eachCommand(cmd *cobra.Command, visit func(*cobra.Command)) {
	visit(cmd)
	for _, sub := range cmd.Commands() {
		eachCommand(sub, visit)
	}
}
