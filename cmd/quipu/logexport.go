package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// exportFormat names the form of an exported book: lines of JSON. The first is a header, the last a footer with
// the SHA-256 of all bytes before it; between them is a line for each record.
const exportFormat = "quipu-book/1"

type exportHeader struct {
	Format   string          `json:"format"`
	Book     string          `json:"book"`
	Options  sdk.BookOptions `json:"options"`
	Tail     quipu.Seq       `json:"tail"`
	Exported time.Time       `json:"exported"`
}

// exportRecord has no kind if it is raw, as those of users are.
type exportRecord struct {
	Seq     quipu.Seq `json:"seq"`
	Kind    string    `json:"kind,omitempty"`
	Version int       `json:"version,omitempty"`
	Time    time.Time `json:"time"`
	Tags    []string  `json:"tags,omitempty"`
	Data    []byte    `json:"data"`
}

type exportFooter struct {
	Records int    `json:"records"`
	SHA256  string `json:"sha256"`
}

func (c *cli) logExport() *cobra.Command {
	var file string
	cmd := c.aboutBook("export BOOK [-f FILE]", "Write all records of a book, as of now, as lines of JSON", func(cmd *cobra.Command, node *sdk.Client, book string) error {
		if file == "" || file == "-" {
			_, err := c.export(cmd.Context(), node, book, c.out)
			return err
		}
		n := 0
		err := writeWhole(file, func(to io.Writer) (err error) {
			n, err = c.export(cmd.Context(), node, book, to)
			return err
		})
		if err != nil {
			return err
		}
		c.note("exported %s to %s", count(uint64(n), "record"), file)
		return nil
	})
	cmd.Flags().StringVarP(&file, "file", "f", "", "the file to write; default: stdout")
	return cmd
}

// export writes what the book holds as of its tail now, and answers how many records that is.
func (c *cli) export(ctx context.Context, node *sdk.Client, book string, to io.Writer) (n int, err error) {
	b, err := node.Book(ctx, book)
	if err != nil {
		return 0, err
	}
	buffered := bufio.NewWriterSize(to, 1<<20)
	sum := sha256.New()
	lines := json.NewEncoder(io.MultiWriter(buffered, sum))
	lines.SetEscapeHTML(false)
	if err := lines.Encode(exportHeader{exportFormat, b.Name, b.Options, b.Tail, time.Now().UTC()}); err != nil {
		return 0, err
	}
	tell := c.progress()
	for r := (sdk.ReadRequest{To: b.Tail.String()}); ; {
		page, err := node.ReadBook(ctx, book, r)
		if err != nil {
			return n, err
		}
		for _, rec := range page.Items {
			if err := lines.Encode(exported(rec)); err != nil {
				return n, err
			}
			n++
		}
		tell("exported %s, up to %s of %s", count(uint64(n), "record"), page.Next, b.Tail)
		if r.From = page.Next; r.From == "" {
			break
		}
	}
	if err := json.NewEncoder(buffered).Encode(exportFooter{n, hex.EncodeToString(sum.Sum(nil))}); err != nil {
		return n, err
	}
	return n, buffered.Flush()
}

func exported(rec sdk.Record) exportRecord {
	out := exportRecord{Seq: rec.Seq, Kind: rec.Kind, Version: rec.Version, Time: rec.Time, Tags: rec.Tags, Data: rec.Data}
	if out.Kind == "raw" {
		out.Kind = ""
	}
	return out
}

// exportReader reads an export line by line, and checks it.
type exportReader struct {
	lines  *bufio.Scanner
	sum    hash.Hash
	line   int
	header exportHeader
	first  []byte // line
	read   int    // records
}

// exportLineMax holds a record of quipu.DataBytesMax in base64, with its tags.
const exportLineMax = 96 << 20

// newExportReader reads the header. CodeBadJSON if it is none.
func newExportReader(in io.Reader) (*exportReader, error) {
	r := &exportReader{lines: bufio.NewScanner(in), sum: sha256.New()}
	r.lines.Buffer(make([]byte, 64<<10), exportLineMax)
	if !r.lines.Scan() {
		return r, r.damaged(r.lines.Err(), "it is empty")
	}
	r.take()
	r.first = append([]byte(nil), r.lines.Bytes()...)
	if err := json.Unmarshal(r.first, &r.header); err != nil || r.header.Format == "" {
		return r, &quipu.Error{Code: quipu.CodeBadJSON, Text: "this is no export of a book: its first line is no header", Hint: "quipu log export BOOK -f FILE makes one"}
	}
	if r.header.Format != exportFormat {
		return r, &quipu.Error{Code: quipu.CodeBadJSON, Text: fmt.Sprintf("the export has the format %q, and this version knows %s", r.header.Format, exportFormat), Hint: "use the version that wrote it"}
	}
	return r, nil
}

func (r *exportReader) take() {
	r.line++
	r.sum.Write(r.lines.Bytes())
	r.sum.Write([]byte{'\n'})
}

// next is io.EOF after a footer that fits.
func (r *exportReader) next() (rec exportRecord, err error) {
	if !r.lines.Scan() {
		return rec, r.damaged(r.lines.Err(), "it ends without a footer")
	}
	var both struct {
		exportRecord
		exportFooter
	}
	if err := json.Unmarshal(r.lines.Bytes(), &both); err != nil {
		r.line++
		return rec, r.damaged(err, "it is no JSON")
	}
	if both.SHA256 != "" {
		return rec, r.end(both.exportFooter)
	}
	r.take()
	if both.Kind != "" {
		return rec, &quipu.Error{Code: quipu.CodeBookLocked, Text: fmt.Sprintf("record %s is a %s record of the platform; only raw records can be imported", both.Seq, both.Kind),
			Hint: "quipu backup keeps what the platform wrote"}
	}
	r.read++
	return both.exportRecord, nil
}

func (r *exportReader) end(f exportFooter) error {
	switch {
	case f.Records != r.read:
		return r.damaged(nil, fmt.Sprintf("its footer counts %s, and there are %d", count(uint64(f.Records), "record"), r.read))
	case f.SHA256 != hex.EncodeToString(r.sum.Sum(nil)):
		return r.damaged(nil, "its bytes are not those that its footer has the sum of")
	case r.lines.Scan():
		return r.damaged(nil, "something follows its footer")
	}
	return io.EOF
}

func (r *exportReader) damaged(cause error, what string) error {
	return &quipu.Error{Code: quipu.CodeBadJSON, Text: fmt.Sprintf("the export is damaged at line %d: %s", r.line, what), Hint: "export the book again", Err: cause}
}
