// Package flights runs quipu demo on applications of the test tree: a real node, kills, and a table that must be exact.
package flights

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/quipu-run/quipu/examples"
)

// Demo builds the program and has its demo send the first flights of the embedded data to the application in app,
// killing everything meanwhile. The test fails unless the table, the summary and the number of events are exact.
// root is the folder of our module.
func Demo(t *testing.T, root, app string, flights int) {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "quipu")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "./cmd/quipu")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	part := filepath.Join(dir, "flights.csv.gz")
	if err := cut(part, flights); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	cmd := exec.CommandContext(t.Context(), bin, "demo", "--once", "--app", app, "--flights", part, "--data", data,
		"--port", "0", "--dapr-http-port", "0", "--dapr-grpc-port", "0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		text, logErr := os.ReadFile(filepath.Join(data, "node.log"))
		t.Fatalf("%v\n%s\nthe node printed (%v):\n%s", err, out, logErr, text[max(0, len(text)-8<<10):])
	}
	t.Logf("%s", out)
}

// cut writes the first flights, with the line above them that names the columns.
func cut(to string, flights int) (err error) {
	from, err := examples.Flights.Open("flights/data/flights-20k.csv.gz")
	if err != nil {
		return err
	}
	defer from.Close()
	unzipped, err := gzip.NewReader(from)
	if err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	zipped := gzip.NewWriter(out)
	lines := bufio.NewReader(unzipped)
	for range flights + 1 {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return fmt.Errorf("there are fewer than %d flights", flights)
		}
		if err != nil {
			return err
		}
		if _, err := zipped.Write(line); err != nil {
			return err
		}
	}
	if err := zipped.Close(); err != nil {
		return err
	}
	return out.Close()
}
