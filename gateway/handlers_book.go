package gateway

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// readBytesMax ends a page early, so that a thousand records of 1 MiB are not one reply.
const readBytesMax = 8 << 20

func listBooks(a *ask) error {
	books, err := a.ns.Log().Books(a.Context())
	if err != nil {
		return err
	}
	items := make([]sdk.Book, 0, len(books))
	for _, b := range books {
		items = append(items, sdk.Book{Name: b.Name, ID: fmt.Sprintf("%016x", uint64(b.ID)), Tail: b.Tail, Trim: b.Trim})
	}
	return a.reply(page(items))
}

func readBook(a *ask) error {
	limit, err := a.integer("limit", listLimitMax, listLimitMax)
	if err != nil {
		return err
	}
	from, err := a.seq("from", 0)
	if err != nil {
		return err
	}
	log := a.ns.Log()
	book, err := log.OpenBook(a.Context(), a.values["book"])
	if err != nil {
		return err
	}
	if !a.query.Has("from") {
		if from, err = first(a, log, book); err != nil {
			return err
		}
	}
	out, size := page([]sdk.Record{}), 0
	for rec, err := range log.Range(a.Context(), book, a.query.Get("tag"), from, quipu.SeqMax) {
		if err != nil {
			return err
		}
		if len(out.Items) == limit || size > readBytesMax {
			out.Next = rec.Seq.String()
			break
		}
		size += len(rec.Data)
		out.Items = append(out.Items, recordOf(rec))
	}
	return a.reply(out)
}

// first is where reading starts when nothing is asked: after what is trimmed.
func first(a *ask, log quipu.Log, book quipu.Book) (quipu.Seq, error) {
	books, err := log.Books(a.Context())
	for _, b := range books {
		if b.ID == book && b.Trim != 0 {
			return b.Trim + 1, nil
		}
	}
	return 0, err
}

func recordOf(r quipu.Record) sdk.Record {
	kinds := map[quipu.Kind]string{quipu.KindRaw: "raw", quipu.KindTx: "tx", quipu.KindSystem: "system"}
	return sdk.Record{Seq: r.Seq, Kind: kinds[r.Kind], Version: int(r.Version), Time: time.Unix(0, r.Stamp).UTC(), Tags: r.Tags, Data: r.Data}
}

// tailBook starts the stream before the first record comes, so that a client knows it listens. An error
// later on is an event named error.
func (g *Gateway) tailBook(a *ask) error {
	log := a.ns.Log()
	book, err := log.OpenBook(a.Context(), a.values["book"])
	if err != nil {
		return err
	}
	from, err := tailFrom(a, log, book)
	if err != nil {
		return err
	}
	out := &stream{ask: a, out: http.NewResponseController(a.ResponseWriter)}
	if err := out.begin(eventsType); err != nil {
		return out.unlessLeft(err)
	}
	ctx, end := g.untilDrain(a.Context())
	defer end()
	for rec, err := range log.Subscribe(ctx, book, a.query.Get("tag"), from) {
		if err != nil && ctx.Err() == nil {
			return out.unlessLeft(out.event("error", "", problemOf(g, a, err)))
		}
		if err != nil {
			return nil // the client left, or the node stops
		}
		if err := out.event("", rec.Seq.String(), recordOf(rec)); err != nil {
			return out.unlessLeft(err)
		}
	}
	return nil
}

func tailFrom(a *ask, log quipu.Log, book quipu.Book) (quipu.Seq, error) {
	if last := a.Request.Header.Get("Last-Event-ID"); last != "" {
		seq, err := quipu.ParseSeq(last)
		return seq + 1, err
	}
	if a.query.Has("from") {
		from, err := a.seq("from", 0)
		if err != nil {
			return 0, err
		}
		start, err := first(a, log, book)
		if err == nil && from < start {
			err = &quipu.Error{Code: quipu.CodeTrimmed, Text: "the records up to " + (start - 1).String() + " were trimmed away", Seq: start - 1}
		}
		return from, err
	}
	tail, err := log.Tail(a.Context(), book, quipu.Linearizable)
	return tail + 1, err
}

func (g *Gateway) getLogs(a *ask) error {
	tail, err := a.integer("tail", 100, tailLinesMax)
	if err != nil {
		return err
	}
	follow, err := a.boolean("follow")
	if err != nil {
		return err
	}
	if _, err := a.ns.Function(a.values["function"]); err != nil {
		return err
	}
	out := &stream{ask: a, out: http.NewResponseController(a.ResponseWriter)}
	if err := out.begin(jsonLinesType); err != nil {
		return out.unlessLeft(err)
	}
	ctx, end := g.untilDrain(a.Context())
	defer end()
	for line, err := range a.ns.Logs(ctx, a.values["function"], tail, follow) {
		if err != nil && ctx.Err() != nil {
			return nil // the client left, or the node stops
		}
		if err == nil {
			err = out.line(line)
		}
		if err != nil {
			return out.unlessLeft(err)
		}
	}
	return nil
}

func (g *Gateway) verifyBook(a *ask) error {
	if _, err := a.ns.Log().OpenBook(a.Context(), a.values["book"]); err != nil {
		return err
	}
	out := &stream{ask: a, out: http.NewResponseController(a.ResponseWriter)}
	if err := out.begin(jsonLinesType); err != nil {
		return out.unlessLeft(err)
	}
	var last sdk.Progress
	err := a.ns.Verify(a.Context(), a.values["book"], func(done, total int64) {
		last.Done, last.Total = done, total
		_ = out.line(last) // if the client left, the context ends the work
	})
	last.OK = err == nil
	if err != nil {
		last.Problem = problemOf(g, a, err)
	}
	return out.unlessLeft(out.line(last))
}

func problemOf(g *Gateway, a *ask, err error) *sdk.Problem {
	_, p := Problem(g.opt.Logger, a.Request, err)
	return &p
}

// stream writes lines or events as they come.
type stream struct {
	*ask
	out *http.ResponseController
}

func (s *stream) begin(contentType string) error {
	h := s.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	s.WriteHeader(http.StatusOK)
	return s.out.Flush()
}

// line writes v as one line of JSON, with < and & as they are: this is no HTML, and nosniff says so.
func (s *stream) line(v any) error {
	out := json.NewEncoder(s)
	out.SetEscapeHTML(false)
	if err := out.Encode(v); err != nil {
		return err
	}
	return s.out.Flush()
}

// event writes v as a server-sent event.
func (s *stream) event(name, id string, v any) error {
	if id != "" {
		if _, err := fmt.Fprintf(s, "id: %s\n", id); err != nil {
			return err
		}
	}
	if name != "" {
		if _, err := fmt.Fprintf(s, "event: %s\n", name); err != nil {
			return err
		}
	}
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(s, "data: %s\n\n", text); err != nil {
		return err
	}
	return s.out.Flush()
}

// unlessLeft drops the error if it only says that the client is gone.
func (s *stream) unlessLeft(err error) error {
	if s.Context().Err() != nil {
		return nil
	}
	return err
}
