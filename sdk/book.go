package sdk

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
)

// lineBytesMax holds a record of quipu.DataBytesMax in base64, with its tags.
const lineBytesMax = 96 << 20

// Books lists books by name.
func (c *Client) Books(ctx context.Context) ([]Book, error) {
	p, err := read[Page[Book]](ctx, c, c.get("/books", nil))
	return p.Items, err
}

// bookPath is the path of a book. An empty name would be another path.
func bookPath(book string, more ...string) (string, error) {
	if book == "" {
		return "", &quipu.Error{Code: quipu.CodeUsage, Text: "the name of the book is empty", Hint: "quipu log ls lists the books"}
	}
	return "/books/" + url.PathEscape(book) + strings.Join(more, ""), nil
}

// toBook is a request about a book, with a JSON body unless it is nil.
func toBook(method string, body any, book string, more ...string) (request, error) {
	path, err := bookPath(book, more...)
	q := request{method: method, path: path}
	if body == nil || err != nil {
		return q, err
	}
	text, err := json.Marshal(body)
	q.body, q.header = bytes.NewReader(text), http.Header{"Content-Type": {"application/json"}}
	return q, err
}

// askBook reads the reply to a request about a book.
func askBook[T any](ctx context.Context, c *Client, q request, err error) (T, error) {
	if err != nil {
		var none T
		return none, err
	}
	return read[T](ctx, c, q)
}

// CreateBook makes a book, durable on return. CodeBookExists, CodeBookLocked; CodeUsage for a name or options that
// cannot be.
func (c *Client) CreateBook(ctx context.Context, name string, o quipu.BookOptions) (Book, error) {
	text, err := json.Marshal(NewBook{Name: name, Options: OptionsOf(o)})
	return askBook[Book](ctx, c, request{method: http.MethodPost, path: "/books", body: bytes.NewReader(text)}, err)
}

// Book describes one. CodeNoBook.
func (c *Client) Book(ctx context.Context, name string) (Book, error) {
	q, err := toBook(http.MethodGet, nil, name)
	return askBook[Book](ctx, c, q, err)
}

// ChangeBook changes options of a book, durable on return. CodeNoBook, CodeBookLocked, CodeUsage.
func (c *Client) ChangeBook(ctx context.Context, name string, change OptionsChange) (Book, error) {
	q, err := toBook(http.MethodPatch, BookChange{Options: change}, name)
	return askBook[Book](ctx, c, q, err)
}

// DeleteBook removes a book with its records, durable on return. CodeNoBook, CodeBookLocked.
func (c *Client) DeleteBook(ctx context.Context, name string) error {
	q, err := toBook(http.MethodDelete, nil, name)
	if err != nil {
		return err
	}
	return c.done(ctx, q)
}

// TrimBook makes the stream of a tag, or with "" the whole book, unreadable up to upto, durable on return.
// CodeNoBook, CodeBookLocked; CodeUsage if upto is above the tail.
func (c *Client) TrimBook(ctx context.Context, name, tag string, upto quipu.Seq) error {
	q, err := toBook(http.MethodPost, TrimTo{Upto: upto, Tag: tag}, name, "/trim")
	if err != nil {
		return err
	}
	return c.done(ctx, q)
}

// AppendRecord is Append of quipu.Log, with its errors, and CodeBookLocked. Kind and Version of the draft are not sent.
func (c *Client) AppendRecord(ctx context.Context, book string, d quipu.Draft) (quipu.Seq, error) {
	q, err := toBook(http.MethodPost, nil, book, "/records")
	q.body, q.query = bytes.NewReader(d.Data), url.Values{"tag": d.Tags}
	q.header = http.Header{"Content-Type": {"application/octet-stream"}}
	if d.Cond != nil {
		q.query.Set("if-last", d.Cond.Tag+"="+d.Cond.Last.String())
	}
	if p := d.Producer; p != (quipu.Producer{}) {
		q.query.Set("producer", fmt.Sprintf("%d.%d.%d", p.ID, p.Epoch, p.N))
	}
	out, err := askBook[Appended](ctx, c, q, err)
	return out.Seq, err
}

// AppendBatch is that of quipu.Log, with its errors, and CodeBookLocked. Kinds and Versions of drafts are not sent.
func (c *Client) AppendBatch(ctx context.Context, book string, ds []quipu.Draft) ([]quipu.Seq, error) {
	batch := Batch{Records: make([]Draft, len(ds))}
	for i, d := range ds {
		batch.Records[i] = Draft{Tags: d.Tags, Data: d.Data}
		if d.Cond != nil {
			batch.Records[i].Cond = &Cond{Tag: d.Cond.Tag, Last: d.Cond.Last}
		}
		if p := d.Producer; p != (quipu.Producer{}) {
			if i > 0 {
				return nil, &quipu.Error{Code: quipu.CodeRecord, Text: "only the first record of a batch names a producer"}
			}
			batch.Producer = &Producer{ID: p.ID, Epoch: p.Epoch, N: p.N}
		}
	}
	q, err := toBook(http.MethodPost, batch, book, "/batch")
	out, err := askBook[AppendedBatch](ctx, c, q, err)
	return out.Seqs, err
}

// BookProducer is Producer of quipu.Log.
func (c *Client) BookProducer(ctx context.Context, book string, id uint64) (quipu.Producer, error) {
	q, err := toBook(http.MethodGet, nil, book, "/producers/", strconv.FormatUint(id, 10))
	p, err := askBook[Producer](ctx, c, q, err)
	return quipu.Producer{ID: p.ID, Epoch: p.Epoch, N: p.N}, err
}

// LogStats says what the log of the node holds.
func (c *Client) LogStats(ctx context.Context) (LogStats, error) {
	return read[LogStats](ctx, c, c.get("/log/stats", nil))
}

// ReadRequest says which records of a book.
type ReadRequest struct {
	Tag     string        // "" for all
	From    string        // a seq; "" for the first there is, or in TailBook for only what is new
	To      string        // a seq; "" for the newest
	Limit   int           // 0 means 1000, which is also the most
	Reverse bool          // the newest first
	Wait    time.Duration // for a record, if there is none; up to a minute
	As      string        // AsBase64, AsText or AsJSON; "" means AsBase64
}

func (r ReadRequest) query() url.Values {
	q := url.Values{}
	for name, value := range map[string]string{"tag": r.Tag, "from": r.From, "to": r.To, "as": r.As} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if r.Limit > 0 {
		q.Set("limit", strconv.Itoa(r.Limit))
	}
	if r.Reverse {
		q.Set("reverse", "true")
	}
	if r.Wait > 0 {
		q.Set("wait", r.Wait.String())
	}
	return q
}

// ReadBook answers a page of records. Its Next is the From of the following page, with Reverse the To.
// CodeNoBook, CodeTrimmed, CodeUsage.
func (c *Client) ReadBook(ctx context.Context, book string, r ReadRequest) (Page[Record], error) {
	q, err := toBook(http.MethodGet, nil, book, "/records")
	q.query = r.query()
	return askBook[Page[Record]](ctx, c, q, err)
}

// TailBook yields records as they come, until ctx ends. An error, if any, comes last: CodeNoNode if the node
// stopped, and then its hint says where to go on.
func (c *Client) TailBook(ctx context.Context, book string, r ReadRequest) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		q, err := toBook(http.MethodGet, nil, book, "/tail")
		if err != nil {
			yield(Record{}, err)
			return
		}
		q.query = r.query()
		resp, err := c.send(ctx, q)
		if err != nil {
			yield(Record{}, err)
			return
		}
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, lineBytesMax)
		failed, next := false, r.From
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), ": ")
			failed = failed || name == "event" && value == "error"
			if name != "data" {
				continue
			}
			rec, err := eventOf(value, failed)
			if !yield(rec, err) || err != nil {
				return
			}
			next = (rec.Seq + 1).String()
		}
		yield(Record{}, c.brokeOff(ctx, "records", next, lines.Err()))
	}
}

func eventOf(data string, failed bool) (rec Record, err error) {
	var p Problem
	if !failed {
		return rec, json.Unmarshal([]byte(data), &rec)
	}
	if err := json.Unmarshal([]byte(data), &p); err != nil {
		return rec, err
	}
	return rec, p.AsError()
}

// VerifyBook reads every byte the book depends on; progress is called on the way. CodeCorrupt, CodeNoBook.
func (c *Client) VerifyBook(ctx context.Context, book string, progress func(Progress)) error {
	q, err := toBook(http.MethodPost, nil, book, "/verify")
	if err != nil {
		return err
	}
	resp, err := c.send(ctx, q)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	outcome := error(&quipu.Error{Code: quipu.CodeNoNode, Text: "the node stopped before it had a verdict"})
	decodeLines(resp.Body, func(p Progress, err error) bool {
		switch {
		case err != nil:
			outcome = err
		case p.Problem != nil:
			outcome = p.Problem.AsError()
		case p.OK:
			outcome = nil
		}
		progress(p)
		return true
	})
	return outcome
}

// Logs yields the last tail lines that instances of a function printed, and with follow new ones until ctx ends.
func (c *Client) Logs(ctx context.Context, function string, tail int, follow bool) iter.Seq2[LogLine, error] {
	return func(yield func(LogLine, error) bool) {
		q := url.Values{"tail": {strconv.Itoa(tail)}, "follow": {strconv.FormatBool(follow)}}
		resp, err := c.send(ctx, c.get("/functions/"+url.PathEscape(function)+"/logs", q))
		if err != nil {
			yield(LogLine{}, err)
			return
		}
		defer resp.Body.Close()
		decodeLines(resp.Body, yield)
	}
}
