package main

import (
	"hash/crc32"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const (
	recordBytes  = 1024
	rawFileBytes = 64 << 20
	rawBatchMax  = 2 << 20
)

// rawLog is the limit that a log on this disk can reach: callers hand their records to one writer, which
// writes all that wait with one pwrite into a zero-filled file, calls fdatasync once, and answers.
type rawLog struct {
	f     *os.File
	queue chan rawAppend
	done  chan struct{}
}

type rawAppend struct {
	data   []byte
	answer chan error
}

func newRawLog(dir string) (*rawLog, error) {
	f, err := os.Create(filepath.Join(dir, "raw.log"))
	if err != nil {
		return nil, err
	}
	zero := make([]byte, 1<<20)
	for range rawFileBytes / len(zero) {
		if _, err := f.Write(zero); err != nil {
			return nil, err
		}
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	l := &rawLog{f: f, queue: make(chan rawAppend, 4096), done: make(chan struct{})}
	go l.write()
	return l, nil
}

func (l *rawLog) append(data []byte) error {
	a := rawAppend{data, make(chan error, 1)}
	l.queue <- a
	return <-a.answer
}

func (l *rawLog) write() {
	defer close(l.done)
	table := crc32.MakeTable(crc32.Castagnoli)
	var offset int64
	var buf []byte
	var waiting []rawAppend
	for a := range l.queue {
		buf, waiting = append(buf[:0], a.data...), append(waiting[:0], a)
		for len(buf) < rawBatchMax && len(l.queue) > 0 {
			a := <-l.queue
			buf, waiting = append(buf, a.data...), append(waiting, a)
		}
		if offset+int64(len(buf)) > rawFileBytes {
			offset = 0
		}
		crc32.Checksum(buf, table)
		_, err := l.f.WriteAt(buf, offset)
		if err == nil {
			err = syscall.Fdatasync(int(l.f.Fd()))
		}
		offset += int64(len(buf))
		for _, a := range waiting {
			a.answer <- err
		}
	}
}

func (l *rawLog) close() error {
	close(l.queue)
	<-l.done
	return l.f.Close()
}

// singleSync is one pwrite and one fdatasync at a time, without any queue.
func singleSync(dir string, d time.Duration) (figure, error) {
	l, err := newRawLog(dir)
	if err != nil {
		return figure{}, err
	}
	data := make([]byte, recordBytes)
	var latencies []time.Duration
	var offset int64
	begin := time.Now()
	for time.Since(begin) < d {
		start := time.Now()
		if _, err := l.f.WriteAt(data, offset); err != nil {
			return figure{}, err
		}
		if err := syscall.Fdatasync(int(l.f.Fd())); err != nil {
			return figure{}, err
		}
		latencies = append(latencies, time.Since(start))
		offset = (offset + recordBytes) % rawFileBytes
	}
	took := time.Since(begin)
	f := figure{Peer: "raw", Bench: "fdatasync", Variant: "1 KiB, no queue", Durable: "fsync", Conc: 1}
	return f.Summed(latencies, took), l.close()
}
