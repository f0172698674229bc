package locallog

import (
	"context"

	"github.com/quipu-run/quipu"
)

// SetBook implements quipu.Log.
func (l *Log) SetBook(ctx context.Context, id quipu.Book, o quipu.BookOptions) error {
	return usage("log.set", "not yet")
}

// DeleteBook implements quipu.Log.
func (l *Log) DeleteBook(ctx context.Context, id quipu.Book) error {
	return usage("log.delete", "not yet")
}

// Producer implements quipu.Log.
func (l *Log) Producer(ctx context.Context, id quipu.Book, producer uint64) (quipu.Producer, error) {
	return quipu.Producer{}, usage("log.producer", "not yet")
}
