package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// The bounds of a batch of an import decide which records have which producer number, and with that what an import that
// is run again leaves out: they belong to exportFormat and must not change without it.
const (
	importRecords = 500
	importBytes   = 4 << 20
)

// importEpoch is the only one: an export never changes, so an import never starts anew.
const importEpoch = 1

func (c *cli) logImport() *cobra.Command {
	var file string
	cmd := c.aboutBook("import BOOK [-f FILE]", "Append the records of an export to a book, which is made if need be; run again, it goes on where it was interrupted", func(cmd *cobra.Command, node *sdk.Client, book string) error {
		if file == "" || file == "-" {
			return c.importFrom(cmd.Context(), node, book, c.in)
		}
		return c.importFile(cmd.Context(), node, book, file)
	})
	cmd.Flags().StringVarP(&file, "file", "f", "", "the file to read, which is checked before anything is appended; default: stdin, checked on the way")
	return cmd
}

// importFile reads the file twice: damage is found before anything is appended.
func (c *cli) importFile(ctx context.Context, node *sdk.Client, book, name string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	r, err := newExportReader(file)
	for err == nil && ctx.Err() == nil {
		_, err = r.next()
	}
	if !errors.Is(err, io.EOF) {
		return errors.Join(ctx.Err(), err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return c.importFrom(ctx, node, book, file)
}

// bookImport is an import under way.
type bookImport struct {
	node     *sdk.Client
	book     string
	from     *exportReader
	producer uint64
	held     *exportRecord // read, but of the next batch
	n        uint64        // of the last batch that was read
	there    int           // records that were in the book already
	added    int
}

func (c *cli) importFrom(ctx context.Context, node *sdk.Client, book string, in io.Reader) error {
	from, err := newExportReader(in)
	if err != nil {
		return err
	}
	m := &bookImport{node: node, book: book, from: from, producer: producerOf(from.first)}
	if err := c.prepareBook(ctx, m); err != nil {
		return err
	}
	known, err := node.BookProducer(ctx, book, m.producer)
	if err != nil {
		return err
	}
	tell := c.progress()
	for {
		drafts, ended := m.batch()
		if ended != nil && !errors.Is(ended, io.EOF) { // a part of a batch would pass for all of it when a good export is read
			c.note("%s before the damage imported", count(uint64(m.there+m.added), "record"))
			return ended
		}
		if len(drafts) > 0 {
			if err := m.append(ctx, drafts, known); err != nil {
				c.note("%s imported so far; the same command goes on from there", count(uint64(m.there+m.added), "record"))
				return err
			}
			tell("imported %s", count(uint64(m.there+m.added), "record"))
		}
		if ended != nil {
			return c.imported(m)
		}
	}
}

// producerOf gives each export a producer of its own, with the highest bit, which no count from 1 gets to.
func producerOf(header []byte) uint64 {
	sum := sha256.Sum256(header)
	return binary.BigEndian.Uint64(sum[:]) | 1<<63
}

// prepareBook makes the book with the options of the one that was exported, if there is none.
func (c *cli) prepareBook(ctx context.Context, m *bookImport) error {
	_, err := m.node.Book(ctx, m.book)
	if quipu.CodeOf(err) != quipu.CodeNoBook {
		return err
	}
	_, err = m.node.CreateBook(ctx, m.book, m.from.header.Options.Contract())
	if err == nil {
		c.note("made the book %s", printable(m.book))
	}
	return err
}

// batch takes the records of the next number. The error is what ended the export.
func (m *bookImport) batch() (drafts []quipu.Draft, err error) {
	for size := 0; len(drafts) < importRecords; {
		rec := m.held
		if m.held = nil; rec == nil {
			next, err := m.from.next()
			if err != nil {
				return drafts, err
			}
			rec = &next
		}
		if size += len(rec.Data); size > importBytes && len(drafts) > 0 {
			m.held = rec
			break
		}
		drafts = append(drafts, quipu.Draft{Tags: rec.Tags, Data: rec.Data})
	}
	return drafts, nil
}

// append adds a batch unless the book has it.
func (m *bookImport) append(ctx context.Context, drafts []quipu.Draft, known quipu.Producer) error {
	m.n++
	if known.Epoch >= importEpoch && m.n <= known.N {
		m.there += len(drafts)
		return nil
	}
	drafts[0].Producer = quipu.Producer{ID: m.producer, Epoch: importEpoch, N: m.n}
	if _, err := m.node.AppendBatch(ctx, m.book, drafts); err != nil {
		return err
	}
	m.added += len(drafts)
	return nil
}

// importOutcome is what -o json and yaml say of an import.
type importOutcome struct {
	Book    string `json:"book"`
	Added   int    `json:"added"`
	Already int    `json:"already"` // by an earlier run
}

func (c *cli) imported(m *bookImport) error {
	if c.output != "table" {
		return c.show(importOutcome{m.book, m.added, m.there})
	}
	already := ""
	if m.there > 0 {
		already = fmt.Sprintf("; %s were there already", count(uint64(m.there), "record"))
	}
	_, err := fmt.Fprintf(c.out, "imported %s into %s%s\n", count(uint64(m.added), "record"), printable(m.book), already)
	return err
}
