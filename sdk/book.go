package sdk

import (
	"bufio"
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/quipu-run/quipu"
)

// lineBytesMax holds a record of 1 MiB in base64, with its tags.
const lineBytesMax = 4 << 20

// Books lists books by name.
func (c *Client) Books(ctx context.Context) ([]Book, error) {
	p, err := read[Page[Book]](ctx, c, c.get("/books", nil))
	return p.Items, err
}

// ReadRequest says which records of a book.
type ReadRequest struct {
	Tag   string // "" for all
	From  string // a seq; "" for the first there is, or in Tail for only what is new
	Limit int    // 0 means 1000, which is also the most
}

func (r ReadRequest) query() url.Values {
	q := url.Values{}
	for name, value := range map[string]string{"tag": r.Tag, "from": r.From} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if r.Limit > 0 {
		q.Set("limit", strconv.Itoa(r.Limit))
	}
	return q
}

// ReadBook answers a page of records. CodeNoBook, CodeTrimmed.
func (c *Client) ReadBook(ctx context.Context, book string, r ReadRequest) (Page[Record], error) {
	return read[Page[Record]](ctx, c, c.get("/books/"+url.PathEscape(book)+"/records", r.query()))
}

// TailBook yields records as they come, until ctx ends. An error, if any, comes last.
func (c *Client) TailBook(ctx context.Context, book string, r ReadRequest) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		resp, err := c.send(ctx, c.get("/books/"+url.PathEscape(book)+"/tail", r.query()))
		if err != nil {
			yield(Record{}, err)
			return
		}
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, lineBytesMax)
		failed := false
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
		}
		if err := lines.Err(); err != nil {
			yield(Record{}, err)
		}
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
	resp, err := c.send(ctx, request{method: http.MethodPost, path: "/books/" + url.PathEscape(book) + "/verify"})
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
