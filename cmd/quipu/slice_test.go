package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/quipu-run/quipu"
)

func TestALongBodyIsShownInItsFirstLines(t *testing.T) {
	var out, notes bytes.Buffer
	c := &cli{out: &out, err: &notes}
	v := callView{quipu.CallSlice{Missing: "the record was trimmed away", CallInfo: quipu.CallInfo{Status: 504, Error: quipu.CodeTimeout},
		Request: quipu.CallBody{Text: strings.Repeat("é", lineColumn+1) + "\n" + strings.Repeat("line\n", 100)}}}
	if err := v.print(c); err != nil {
		t.Fatal(err)
	}
	got := out.String()
	if strings.Count(got, "| line\n") != bodyLines-1 || !strings.Contains(got, strings.Repeat("é", lineColumn)+"…\n") || !strings.Contains(got, "-o json has up to 16 KiB") {
		t.Errorf("printed\n%s", got)
	}
	if !strings.Contains(got, "reply     504 Q0503, 0 bytes") || strings.Contains(got, "record") || notes.String() != "the record was trimmed away\n" {
		t.Errorf("printed\n%snoted %s", got, notes.String())
	}
}
