package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// readBytesMax ends a page early, so that a thousand large records are not one reply.
const readBytesMax = 8 << 20

// waitMax bounds a long poll: a client asks again, and proxies have no patience.
const waitMax = time.Minute

// span is which records of a book are asked for.
type span struct {
	log      quipu.Log
	book     quipu.Book
	tag      string
	from, to quipu.Seq
	given    bool // from is the client's: what is trimmed there is an error
	limit    int
	as       string
}

func (g *Gateway) readBook(a *ask) error {
	s, err := a.span()
	if err != nil {
		return err
	}
	reverse, err := a.boolean("reverse")
	if err != nil {
		return err
	}
	wait, err := a.patience()
	switch {
	case err != nil:
		return err
	case reverse && wait > 0:
		return usage("wait is for what comes next; it does not go with reverse")
	case reverse:
		out, err := s.backwards(a.Context())
		if err != nil {
			return err
		}
		return a.reply(out)
	}
	out, err := s.forwards(a.Context())
	if err == nil && len(out.Items) == 0 && wait > 0 {
		out, err = g.wait(a.Context(), s, wait)
	}
	if err != nil {
		return err
	}
	return a.reply(out)
}

// span reads the parameters. CodeUsage, CodeNoBook.
func (a *ask) span() (s *span, err error) {
	s = &span{log: a.ns.Log(), tag: a.query.Get("tag"), given: a.query.Has("from") || a.query.Has("after")}
	if s.limit, err = a.integer("limit", listLimitMax, listLimitMax); err != nil {
		return s, err
	}
	if s.from, err = a.from(); err != nil {
		return s, err
	}
	if s.to, err = a.seq("to", quipu.SeqMax); err != nil {
		return s, err
	}
	if s.as, err = a.form(); err != nil {
		return s, err
	}
	s.book, err = s.log.OpenBook(a.Context(), a.values["book"])
	return s, err
}

// from is the parameter of that name, or what follows after.
func (a *ask) from() (quipu.Seq, error) {
	if !a.query.Has("after") {
		return a.seq("from", 0)
	}
	if a.query.Has("from") {
		return 0, usage("from and after exclude each other")
	}
	return seqAfter(a.query.Get("after"))
}

// seqAfter is the seq after one that was seen.
func seqAfter(text string) (quipu.Seq, error) {
	seq, err := quipu.ParseSeq(text)
	if err == nil && seq == quipu.SeqMax {
		err = usage("nothing comes after %s", quote(text))
	}
	return seq + 1, err
}

// form is how data is to be written.
func (a *ask) form() (string, error) {
	switch as := a.query.Get("as"); as {
	case "":
		return sdk.AsBase64, nil
	case sdk.AsBase64, sdk.AsText, sdk.AsJSON:
		return as, nil
	default:
		return "", usage("as is %s; it must be base64, text or json", quote(as))
	}
}

func (a *ask) patience() (time.Duration, error) {
	wait, err := a.duration("wait", quipu.CodeUsage)
	if err == nil && wait > waitMax {
		err = usage("wait is %s; it may be up to %s", wait, waitMax)
	}
	return wait, err
}

// forwards answers a page. Who does not say where to begin begins after what is trimmed, also if that grows meanwhile.
func (s *span) forwards(ctx context.Context) (sdk.Page[sdk.Record], error) {
	const triesMax = 8
	for try := 1; ; try++ {
		out, err := s.ahead(ctx)
		if s.given || try == triesMax || quipu.CodeOf(err) != quipu.CodeTrimmed {
			return out, err
		}
		s.from = quipu.AsError(err).Seq + 1
	}
}

func (s *span) ahead(ctx context.Context) (sdk.Page[sdk.Record], error) {
	out, size := page([]sdk.Record{}), 0
	for rec, err := range s.log.Range(ctx, s.book, s.tag, s.from, s.to) {
		if err != nil {
			return out, err
		}
		if size += len(rec.Data); s.full(len(out.Items), size) {
			out.Next = rec.Seq.String()
			break
		}
		out.Items = append(out.Items, recordOf(rec, s.as))
	}
	return out, nil
}

// full tells that a record, with which a page would have so many bytes, is for the next page.
func (s *span) full(items, size int) bool {
	return items == s.limit || items > 0 && size > readBytesMax
}

// backwards answers a page with the newest first. It ends where the stream was trimmed, unless all that was asked for was.
func (s *span) backwards(ctx context.Context) (sdk.Page[sdk.Record], error) {
	out, size := page([]sdk.Record{}), 0
	for to := s.to; to >= s.from; {
		rec, err := s.log.Prev(ctx, s.book, s.tag, to)
		code := quipu.CodeOf(err)
		if code == quipu.CodeNotFound || code == quipu.CodeTrimmed && s.to > quipu.AsError(err).Seq || err == nil && rec.Seq < s.from {
			break
		}
		if err != nil {
			return out, err
		}
		if size += len(rec.Data); s.full(len(out.Items), size) {
			out.Next = rec.Seq.String()
			break
		}
		out.Items = append(out.Items, recordOf(rec, s.as))
		if to = rec.Seq - 1; rec.Seq == 0 {
			break
		}
	}
	return out, nil
}

// wait answers an empty page if nothing comes in time, or the node stops.
func (g *Gateway) wait(ctx context.Context, s *span, patience time.Duration) (sdk.Page[sdk.Record], error) {
	ctx, end := g.untilDrain(ctx)
	defer end()
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for rec, err := range s.log.Subscribe(waiting, s.book, s.tag, s.from) {
		switch {
		case err != nil && waiting.Err() != nil || err == nil && rec.Seq > s.to:
			return page([]sdk.Record{}), nil
		case err != nil:
			return sdk.Page[sdk.Record]{}, err
		}
		s.from = rec.Seq
		return s.ahead(ctx)
	}
	return page([]sdk.Record{}), nil
}

var kindNames = map[quipu.Kind]string{quipu.KindRaw: "raw", quipu.KindTx: "tx", quipu.KindSystem: "system"}

func recordOf(r quipu.Record, as string) sdk.Record {
	out := sdk.Record{Seq: r.Seq, Kind: kindNames[r.Kind], Version: int(r.Version), Time: time.Unix(0, r.Stamp).UTC(), Tags: r.Tags}
	switch {
	case as == sdk.AsJSON && json.Valid(r.Data):
		out.JSON = r.Data
	case as != sdk.AsBase64 && len(r.Data) > 0 && utf8.Valid(r.Data):
		out.Text = string(r.Data)
	case r.Data == nil:
		out.Data = []byte{} // "" and not left out
	default:
		out.Data = r.Data
	}
	return out
}

// tailBook starts the stream before the first record comes, so that a client knows it listens. An error
// later on is an event named error.
func (g *Gateway) tailBook(a *ask) error {
	as, err := a.form()
	if err != nil {
		return err
	}
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
		if err := out.event("", rec.Seq.String(), recordOf(rec, as)); err != nil {
			return out.unlessLeft(err)
		}
	}
	return nil
}

// tailFrom is where a tail begins. What it asks for and was trimmed is an error with a status, before the stream.
func tailFrom(a *ask, log quipu.Log, book quipu.Book) (quipu.Seq, error) {
	last := a.Request.Header.Get("Last-Event-ID")
	if last == "" && !a.query.Has("from") && !a.query.Has("after") {
		tail, err := log.Tail(a.Context(), book, quipu.Linearizable)
		return tail + 1, err
	}
	from, err := a.from()
	if last != "" {
		from, err = seqAfter(last)
	}
	if err != nil {
		return 0, err
	}
	if _, err = log.Next(a.Context(), book, a.query.Get("tag"), from); quipu.CodeOf(err) == quipu.CodeNotFound {
		err = nil
	}
	return from, err
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
	return g.writeLogs(a, sdk.LogsRequest{Functions: []string{a.values["function"]}, Tail: tail, Follow: follow})
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
