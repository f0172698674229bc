package locallog

import (
	"errors"
	"fmt"
	"path/filepath"
	"syscall"

	"github.com/quipu-run/quipu"
)

func usage(op, text string) error {
	return &quipu.Error{Code: quipu.CodeUsage, Op: op, Text: text}
}

func noBook(op string, book quipu.Book) error {
	return &quipu.Error{Code: quipu.CodeNoBook, Op: op, Text: fmt.Sprintf("there is no book %d", book)}
}

func trimmed(op string, point quipu.Seq) error {
	return &quipu.Error{Code: quipu.CodeTrimmed, Op: op, Seq: point,
		Text: fmt.Sprintf("records up to %s were trimmed", point), Hint: fmt.Sprintf("read from %s", point+1)}
}

func notFound(op, text string) error {
	return &quipu.Error{Code: quipu.CodeNotFound, Op: op, Text: text}
}

func stopped(cause error) error {
	return &quipu.Error{Code: quipu.CodeLogStopped, Op: "log", Err: cause}
}

func unknown(cause error) error {
	return &quipu.Error{Code: quipu.CodeUnknown, Op: "log.append", Err: cause}
}

func diskFull(cause error) error {
	return &quipu.Error{Code: quipu.CodeDiskFull, Op: "log.append", Err: cause}
}

// corrupt says that bytes that were durable are damaged. offset < 0 means the file as a whole.
func corrupt(path string, offset int64, why string) error {
	text := fmt.Sprintf("%s is damaged: %s", filepath.Base(path), why)
	if offset >= 0 {
		text = fmt.Sprintf("%s is damaged at offset %d: %s", filepath.Base(path), offset, why)
	}
	return &quipu.Error{Code: quipu.CodeCorrupt, Op: "log", Text: text,
		Hint: "stop using the disk; restore " + filepath.Dir(path) + " from a backup"}
}

func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
