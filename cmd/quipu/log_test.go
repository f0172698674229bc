package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// exportOf makes an export of n records, and answers the file.
func exportOf(t *testing.T, node *httptest.Server, n int) string {
	t.Helper()
	var in bytes.Buffer
	for i := range n {
		fmt.Fprintf(&in, "record %d\n", i)
	}
	file := filepath.Join(t.TempDir(), "orders.jsonl")
	for _, line := range []string{"log create orders", "log append orders --lines", "log export orders -f " + file} {
		if code := exitOf(t, node, &in, line); code != 0 {
			t.Fatalf("quipu %s: exit %d", line, code)
		}
	}
	return file
}

func exitOf(t *testing.T, node *httptest.Server, in io.Reader, line string) int {
	t.Helper()
	return run(t.Context(), append(strings.Fields(line), "--node", node.URL), in, io.Discard, io.Discard)
}

// dataOf is all data of a book.
func dataOf(t *testing.T, node *httptest.Server, book string) (all []string) {
	t.Helper()
	c, err := sdk.New(sdk.Options{URL: node.URL})
	if err != nil {
		t.Fatal(err)
	}
	for from := "0"; from != ""; {
		page, err := c.ReadBook(t.Context(), book, sdk.ReadRequest{From: from})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page.Items {
			all = append(all, string(r.Data))
		}
		from = page.Next
	}
	return all
}

func wantRecords(t *testing.T, got []string, n int) {
	t.Helper()
	if len(got) != n {
		t.Fatalf("%d records, want %d", len(got), n)
	}
	for i, data := range got {
		if data != fmt.Sprintf("record %d", i) {
			t.Fatalf("record %d is %q", i, data)
		}
	}
}

// flaky breaks the connection of every request to append, before or after the node has it, but for each third.
type flaky struct {
	node    *httptest.Server
	appends int
}

func (f *flaky) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	isAppend := strings.HasSuffix(r.URL.Path, "/batch")
	if isAppend {
		f.appends++
	}
	if isAppend && f.appends%3 == 0 {
		panic(http.ErrAbortHandler)
	}
	if isAppend && f.appends%3 == 1 {
		w2 := httptest.NewRecorder()
		f.node.Config.Handler.ServeHTTP(w2, r)
		panic(http.ErrAbortHandler) // it is done, but nobody hears of it
	}
	f.node.Config.Handler.ServeHTTP(w, r)
}

func TestAnImportThatIsInterruptedGoesOnWithoutDoubles(t *testing.T) {
	node, err := fakeNode()
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	const records = 7*importRecords + 3
	file := exportOf(t, node, records)
	front := httptest.NewServer(&flaky{node: node})
	defer front.Close()
	runs := 0
	for code := 1; code != 0; runs++ {
		if runs > 3*8 {
			t.Fatal("it never ends")
		}
		code = exitOf(t, front, nil, "log import copy -f "+file)
	}
	if runs < 5 {
		t.Errorf("only %d runs: nothing was interrupted", runs)
	}
	wantRecords(t, dataOf(t, node, "copy"), records)
}

func TestADamagedExportIsFoundBeforeAnythingIsAppended(t *testing.T) {
	node, err := fakeNode()
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	const records = importRecords + 20
	file := exportOf(t, node, records)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(whole, []byte("\n"))
	for name, damaged := range map[string][]byte{
		"a byte":            bytes.Replace(whole, []byte(`"data":"c`), []byte(`"data":"d`), 1),
		"a line lost":       append(bytes.Join(lines[:5], nil), bytes.Join(lines[6:], nil)...),
		"cut":               bytes.Join(lines[:importRecords+10], nil),
		"cut in a line":     whole[:len(whole)/2],
		"longer":            append(bytes.Clone(whole), lines[3]...),
		"two lines swapped": bytes.Join(append(append(append([][]byte{}, lines[:3]...), lines[4], lines[3]), lines[5:]...), nil),
	} {
		bad := filepath.Join(t.TempDir(), "bad.jsonl")
		if err := os.WriteFile(bad, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		if code := exitOf(t, node, nil, "log import never -f "+bad); code != 1 {
			t.Errorf("%s: exit %d", name, code)
		}
		if code := exitOf(t, node, nil, "log get never"); code != 1 {
			t.Errorf("%s: the book was made", name)
		}
	}
	// Through a pipe it is found on the way. What came before stays, and a good export completes it.
	if code := exitOf(t, node, bytes.NewReader(bytes.Join(lines[:importRecords+10], nil)), "log import piped"); code != 1 {
		t.Errorf("a cut pipe: exit %d", code)
	}
	wantRecords(t, dataOf(t, node, "piped"), importRecords)
	if code := exitOf(t, node, bytes.NewReader(whole), "log import piped"); code != 0 {
		t.Errorf("the whole pipe: exit %d", code)
	}
	wantRecords(t, dataOf(t, node, "piped"), records)
}

func TestAnExportThatFailsLeavesNoFile(t *testing.T) {
	node, err := fakeNode()
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	dir := t.TempDir()
	if code := exitOf(t, node, nil, "log export nothing -f "+filepath.Join(dir, "x")); code != 1 {
		t.Errorf("exit %d", code)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// A pipe that stays open must not hold back what came through it.
func TestAppendedLinesAreAcknowledgedWhileTheInputIsOpen(t *testing.T) {
	node, err := fakeNode()
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	in, writer := io.Pipe()
	out, done := make(told, 10), make(chan int, 1)
	if code := exitOf(t, node, nil, "log create orders"); code != 0 {
		t.Fatalf("exit %d", code)
	}
	go func() {
		done <- run(t.Context(), []string{"log", "append", "orders", "--lines", "-o", "json", "--node", node.URL}, in, out, io.Discard)
	}()
	for i := range 3 {
		fmt.Fprintf(writer, "record %d\n", i)
		var at sdk.Appended
		if err := json.Unmarshal([]byte(<-out), &at); err != nil || at.Seq == 0 {
			t.Fatalf("line %d: %v", i, err)
		}
		wantRecords(t, dataOf(t, node, "orders"), i+1)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	if code := <-done; code != 0 {
		t.Errorf("exit %d", code)
	}
}

func TestATailFollowsFromWhatItShowed(t *testing.T) {
	node, err := fakeNode()
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	exportOf(t, node, 5)
	out, done := make(told, 100), make(chan int, 1)
	go func() {
		done <- run(t.Context(), []string{"log", "tail", "orders", "-f", "--last", "2", "--limit", "4", "--node", node.URL}, nil, out, io.Discard)
	}()
	out.wait(t, "record 4")
	for i := range 2 {
		if code := exitOf(t, node, nil, fmt.Sprintf("log append orders new-%d", i)); code != 0 {
			t.Fatalf("exit %d", code)
		}
		out.wait(t, fmt.Sprintf("new-%d", i))
	}
	if code := <-done; code != 0 {
		t.Errorf("exit %d", code)
	}
}

// Whatever bytes are taken for an export, either they are one, whole, or an import says what is wrong with them.
func FuzzExport(f *testing.F) {
	f.Add([]byte(`{"format":"quipu-book/1","book":"x","options":{},"tail":"1","exported":"2026-01-02T03:04:05Z"}` + "\n" + `{"records":0,"sha256":"x"}`))
	f.Add([]byte(`{"format":"quipu-book/1"}` + "\n" + `{"seq":"1","data":"AA=="}` + "\n" + `{"seq":"2","kind":"tx"}`))
	f.Add([]byte("{}\n[]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := newExportReader(bytes.NewReader(data))
		for n := 0; err == nil; n++ {
			if n > len(data) {
				t.Fatal("it has more records than bytes")
			}
			_, err = r.next()
		}
		if errors.Is(err, io.EOF) {
			return // whole: the sum fits
		}
		if code := quipu.CodeOf(err); code != quipu.CodeBadJSON && code != quipu.CodeBookLocked {
			t.Errorf("%v", err)
		}
	})
}
