package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/locallog"
)

const (
	scaleRecordBytes = 100
	scaleBatch       = 1000
	scaleTags        = 100
	scaleReads       = 1000
	scaleFirst       = 10_000
	scaleOpens       = 3 // of which the fastest counts: the others wait for somebody else's processor
	// scaleChild as the first argument makes this program a process that only has a log.
	scaleChild = "scale-child"
)

// opened is what a process that opened a log says of itself.
type opened struct {
	OpenMicros float64 `json:"open_us"`
	OpenKiB    int     `json:"rss_open_KiB"`
	ReadKiB    int     `json:"rss_read_KiB"`
}

// scaleFigure is a line of the table.
type scaleFigure struct {
	Peer    string `json:"peer"`
	Bench   string `json:"bench"`
	Variant string `json:"variant"` // how the log ended before it was opened
	N       int    `json:"n"`
	Disk    int64  `json:"disk_bytes"`
	opened
}

// benchScale opens logs of ten times more records each, in processes of their own: time and memory should not follow.
func benchScale(r *runner) error {
	if !r.json {
		fmt.Fprintf(r.out, "%-8s %-8s %-8s %10s %10s %10s %12s %18s\n", "peer", "bench", "ended", "records", "disk MiB", "open ms", "RSS MiB", "after 1000 reads")
	}
	for n := scaleFirst; n <= int(r.max); n *= 10 {
		if err := r.scale(n); err != nil {
			return fmt.Errorf("%d records: %w", n, err)
		}
	}
	return nil
}

// scale makes one log, kills its process, and opens it: after the kill, and after a clean close.
func (r *runner) scale(n int) error {
	dir := filepath.Join(r.dir, fmt.Sprintf("scale-%d", n))
	defer os.RemoveAll(dir)
	if _, err := r.child(syscall.SIGKILL, "build", dir, n); err != nil {
		return err
	}
	for i, ended := range []string{"killed", "closed"} {
		best := scaleFigure{Peer: "quipu", Bench: "scale", Variant: ended, N: n}
		for open := range scaleOpens {
			// A killed one stays killed until it was opened often enough, then it is closed.
			end := syscall.SIGKILL
			if i == 1 || open == scaleOpens-1 {
				end = syscall.SIGTERM
			}
			got, err := r.child(end, "open", dir, n)
			if err != nil {
				return err
			}
			if open == 0 || got.OpenMicros < best.OpenMicros {
				best.opened = got
			}
		}
		var err error
		if best.Disk, err = diskBytes(dir); err != nil {
			return err
		}
		r.printScale(best)
	}
	return nil
}

func (r *runner) printScale(f scaleFigure) {
	if r.json {
		line, err := json.Marshal(f)
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(r.out, "%s\n", line)
		return
	}
	fmt.Fprintf(r.out, "%-8s %-8s %-8s %10d %10.1f %10.1f %12.1f %18.1f\n", f.Peer, f.Bench, f.Variant, f.N, float64(f.Disk)/(1<<20),
		f.OpenMicros/1000, float64(f.OpenKiB)/1024, float64(f.ReadKiB)/1024)
}

// child runs this program as a process with the log in dir, and ends it with a signal when it has said what it has to.
func (r *runner) child(end syscall.Signal, what, dir string, n int) (out opened, err error) {
	self, err := os.Executable()
	if err != nil {
		return out, err
	}
	cmd := exec.Command(self, scaleChild, what, dir, strconv.Itoa(n))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe() // the child ends when it closes, should this process die
	if err != nil {
		return out, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return out, err
	}
	if err := cmd.Start(); err != nil {
		return out, err
	}
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &out)
	}
	if end == syscall.SIGKILL {
		err = errors.Join(err, cmd.Process.Kill())
	}
	err = errors.Join(err, stdin.Close())
	var exit *exec.ExitError
	if e := cmd.Wait(); e != nil && !(errors.As(e, &exit) && end == syscall.SIGKILL) {
		err = errors.Join(err, e)
	}
	return out, err
}

// runScaleChild is the process: it builds or opens a log, tells, and closes it when its input ends.
func runScaleChild(args []string) error {
	if len(args) != 3 {
		return errors.New("usage: scale-child build|open DIR N")
	}
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	start := time.Now()
	l, err := locallog.Open(locallog.Options{Dir: args[1]})
	if err != nil {
		return err
	}
	told := opened{OpenMicros: float64(time.Since(start)) / 1e3}
	if args[0] == "build" {
		err = buildScale(l, n)
	} else {
		err = readScale(l, &told)
	}
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(told)
	}
	for b := make([]byte, 1); err == nil; {
		if _, e := os.Stdin.Read(b); e != nil {
			break
		}
	}
	return errors.Join(err, l.Close())
}

// buildScale appends n records in batches.
func buildScale(l *locallog.Log, n int) error {
	ctx := context.Background()
	book, err := l.CreateBook(ctx, "scale", quipu.BookOptions{})
	if err != nil {
		return err
	}
	ds := make([]quipu.Draft, scaleBatch)
	for at := 0; at < n; at += scaleBatch {
		for i := range ds {
			ds[i] = quipu.Draft{Tags: []string{strconv.Itoa((at + i) % scaleTags)}, Data: make([]byte, scaleRecordBytes)}
		}
		if _, err := l.AppendBatch(ctx, book, ds[:min(scaleBatch, n-at)]); err != nil {
			return err
		}
	}
	return nil
}

// readScale reads records anywhere, by tag and seq, and notes the memory before and after.
func readScale(l *locallog.Log, told *opened) (err error) {
	if told.OpenKiB, err = rss(os.Getpid()); err != nil {
		return err
	}
	ctx := context.Background()
	book, err := l.OpenBook(ctx, "scale")
	if err != nil {
		return err
	}
	tail, err := l.Tail(ctx, book, quipu.Local)
	if err != nil {
		return err
	}
	for range scaleReads {
		r, err := l.Prev(ctx, book, strconv.Itoa(rand.IntN(scaleTags)), 2+quipu.Seq(scaleTags+rand.Uint64N(tail.Pos()-scaleTags)))
		if err != nil {
			return err
		}
		if len(r.Data) != scaleRecordBytes {
			return fmt.Errorf("record %s has %d bytes", r.Seq, len(r.Data))
		}
	}
	told.ReadKiB, err = rss(os.Getpid())
	return err
}

// diskBytes is what the files in dir take on the disk.
func diskBytes(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			sum += stat.Blocks * 512
		}
		return nil
	})
	return sum, err
}
