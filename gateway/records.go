package gateway

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// recordRoutes are the operations on the records of a book.
func (g *Gateway) recordRoutes() []adminRoute {
	one := append(slices.Clone(readCodes), quipu.CodeNotFound, quipu.CodeUsage)
	return []adminRoute{
		{id: "readBook", method: "GET", path: "/books/{book}/records", summary: "Records in order, or against it. next, if set, is the from of the following page; with reverse, its to.",
			query: []param{tagParam, fromParam, afterParam, {"to", "seq", "the last seq wanted; default: the newest"}, limitParam,
				{"reverse", "boolean", "the newest first, down to from or to where the book was trimmed"},
				{"wait", "string", "if there is no record, wait up to so long for one: a duration up to " + waitMax.String()}, asForm},
			status: 200, reply: jsonType, shape: sdk.Page[sdk.Record]{}, codes: append(slices.Clone(readCodes), quipu.CodeUsage), serve: g.readBook},
		{id: "tailBook", method: "GET", path: "/books/{book}/tail", summary: "Records as server-sent events, without end; the id of an event is its seq, and Last-Event-ID goes on after it.",
			query:  []param{tagParam, {"from", "seq", "the first seq wanted; default: only what is new"}, afterParam, asForm},
			header: []param{{"Last-Event-ID", "seq", "as after, and before all others"}},
			status: 200, reply: eventsType, shape: sdk.Record{}, codes: append(slices.Clone(readCodes), quipu.CodeUsage), serve: g.tailBook},
		{id: "appendRecord", method: "POST", path: "/books/{book}/records", summary: "Append a record whose data is the body, of whatever content type; durable on return.",
			query: []param{{"tag", "strings", "a tag of the record; up to 32"},
				{"if-last", "string", "TAG=SEQ: only if the newest record with the tag has this seq; TAG=0: if there is none"},
				{"producer", "string", "ID.EPOCH.N: an append that is sent again under this name is the same append"}},
			body: "*/*", bodyMax: quipu.DataBytesMax, status: 200, reply: jsonType, shape: sdk.Appended{},
			codes: append(slices.Clone(addCodes), quipu.CodeUsage), serve: appendRecord},
		{id: "appendBatch", method: "POST", path: "/books/{book}/batch", summary: "Append records together, all or none; durable on return. Data is in data (base64), text or json.",
			body: jsonType, takes: sdk.Batch{}, bodyMax: batchBodyMax, status: 200, reply: jsonType, shape: sdk.AppendedBatch{},
			codes: append(slices.Clone(addCodes), quipu.CodeBadJSON), serve: appendBatch},
		{id: "getRecord", method: "GET", path: "/books/{book}/records/{seq}", summary: "One record.",
			query: []param{asForm}, status: 200, reply: jsonType, shape: sdk.Record{}, codes: one, serve: getRecord},
		{id: "getRecordData", method: "GET", path: "/books/{book}/records/{seq}/data", summary: "The data of one record, as it is.",
			status: 200, reply: bytesType, codes: one, serve: getRecordData},
		{id: "getAux", method: "GET", path: "/books/{book}/records/{seq}/aux", summary: "The hint that was kept for a record. It may vanish at any time.",
			status: 200, reply: bytesType, codes: one, serve: getAux},
		{id: "putAux", method: "PUT", path: "/books/{book}/records/{seq}/aux", summary: "Keep a hint for a record, in memory only.",
			body: bytesType, status: 204, codes: []quipu.Code{quipu.CodeNoBook, quipu.CodeBookLocked, quipu.CodeUsage, quipu.CodeBodySize}, serve: putAux},
	}
}

func appendRecord(a *ask) error {
	draft := quipu.Draft{Tags: a.query["tag"]}
	var err error
	if draft.Cond, err = condOf(a.query.Get("if-last"), a.query.Has("if-last")); err != nil {
		return err
	}
	if a.query.Has("producer") {
		if draft.Producer, err = producerOf(a.query.Get("producer")); err != nil {
			return err
		}
	}
	if i := slices.IndexFunc(draft.Tags, func(tag string) bool { return !utf8.ValidString(tag) }); i >= 0 {
		return &quipu.Error{Code: quipu.CodeRecord, Text: "the tag " + quote(draft.Tags[i]) + " is no UTF-8, and JSON could not show it"}
	}
	log, book, err := a.writable("log.append")
	if err != nil {
		return err
	}
	if draft.Data, err = a.readBody(); err != nil {
		return err
	}
	seq, err := log.Append(a.Context(), book, draft)
	if err != nil {
		return err
	}
	return a.reply(sdk.Appended{Seq: seq})
}

// condOf reads TAG=SEQ; a tag may have =.
func condOf(text string, given bool) (*quipu.Cond, error) {
	if !given {
		return nil, nil
	}
	i := strings.LastIndexByte(text, '=')
	if i < 0 {
		return nil, usage("if-last is %s; it must be TAG=SEQ, or TAG=0 if there is to be none", quote(text))
	}
	last, err := quipu.ParseSeq(text[i+1:])
	return &quipu.Cond{Tag: text[:i], Last: last}, err
}

// producerOf reads ID.EPOCH.N.
func producerOf(text string) (p quipu.Producer, err error) {
	id, rest, _ := strings.Cut(text, ".")
	epoch, n, _ := strings.Cut(rest, ".")
	p.ID, err = strconv.ParseUint(id, 10, 64)
	if err == nil {
		var e uint64
		e, err = strconv.ParseUint(epoch, 10, 32)
		p.Epoch = uint32(e)
	}
	if err == nil {
		p.N, err = strconv.ParseUint(n, 10, 64)
	}
	if err != nil || p.ID == 0 || p.N == 0 {
		return p, usage("producer is %s; it must be ID.EPOCH.N, three numbers, ID and N from 1", quote(text))
	}
	return p, nil
}

func appendBatch(a *ask) error {
	log, book, err := a.writable("log.append")
	if err != nil {
		return err
	}
	var batch sdk.Batch
	if err := a.object(&batch); err != nil {
		return err
	}
	drafts, err := draftsOf(batch)
	if err != nil {
		return err
	}
	seqs, err := log.AppendBatch(a.Context(), book, drafts)
	if err != nil {
		return err
	}
	return a.reply(sdk.AppendedBatch{Seqs: seqs})
}

func draftsOf(batch sdk.Batch) ([]quipu.Draft, error) {
	if n := len(batch.Records); n == 0 || n > quipu.BatchMax {
		return nil, &quipu.Error{Code: quipu.CodeRecord, Text: "the batch has " + strconv.Itoa(n) + " records; it must have 1 to " + strconv.Itoa(quipu.BatchMax)}
	}
	drafts := make([]quipu.Draft, len(batch.Records))
	for i, r := range batch.Records {
		data, ok := dataOf(r)
		if !ok {
			return nil, &quipu.Error{Code: quipu.CodeBadJSON, Text: "record " + strconv.Itoa(i+1) + " of the batch has more than one of data, text and json"}
		}
		drafts[i] = quipu.Draft{Tags: r.Tags, Data: data}
		if r.Cond != nil {
			drafts[i].Cond = &quipu.Cond{Tag: r.Cond.Tag, Last: r.Cond.Last}
		}
	}
	if p := batch.Producer; p != nil {
		if p.ID == 0 || p.N == 0 {
			return nil, usage("the producer lacks id or n; both are numbers from 1")
		}
		drafts[0].Producer = quipu.Producer{ID: p.ID, Epoch: p.Epoch, N: p.N}
	}
	return drafts, nil
}

// dataOf is the data of a draft, which is in at most one of three fields.
func dataOf(d sdk.Draft) (data []byte, ok bool) {
	given := 0
	if d.Data != nil {
		data, given = d.Data, given+1
	}
	if d.Text != nil {
		data, given = []byte(*d.Text), given+1
	}
	if d.JSON != nil {
		data, given = d.JSON, given+1
	}
	return data, given <= 1
}

// record finds the one that the path names. CodeNotFound, CodeTrimmed.
func (a *ask) record() (quipu.Record, error) {
	log, book, seq, err := a.place()
	if err != nil {
		return quipu.Record{}, err
	}
	rec, err := log.Next(a.Context(), book, quipu.TagAll, seq)
	if err == nil && rec.Seq != seq || quipu.CodeOf(err) == quipu.CodeNotFound {
		return rec, &quipu.Error{Code: quipu.CodeNotFound, Text: "the book " + quote(a.values["book"]) + " has no record " + seq.String(), Hint: "quipu log read lists records with their seqs"}
	}
	return rec, err
}

// place is the book and the seq of the path.
func (a *ask) place() (quipu.Log, quipu.Book, quipu.Seq, error) {
	log := a.ns.Log()
	seq, err := quipu.ParseSeq(a.values["seq"])
	if err != nil {
		return log, 0, 0, err
	}
	book, err := log.OpenBook(a.Context(), a.values["book"])
	return log, book, seq, err
}

func getRecord(a *ask) error {
	as, err := a.form()
	if err != nil {
		return err
	}
	rec, err := a.record()
	if err != nil {
		return err
	}
	return a.reply(recordOf(rec, as))
}

func getRecordData(a *ask) error {
	rec, err := a.record()
	if err != nil {
		return err
	}
	a.bytes(rec.Data)
	return nil
}

// bytes answers with data that a browser must not take for anything else.
func (a *ask) bytes(data []byte) {
	h := a.Header()
	h.Set("Content-Type", bytesType)
	h.Set("Content-Length", strconv.Itoa(len(data)))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	_, _ = a.Write(data) // a client that left has nobody to tell
}

func getAux(a *ask) error {
	log, book, seq, err := a.place()
	if err != nil {
		return err
	}
	aux, err := log.Aux(a.Context(), book, seq)
	if err != nil {
		return err
	}
	a.bytes(aux)
	return nil
}

func putAux(a *ask) error {
	seq, err := quipu.ParseSeq(a.values["seq"])
	if err != nil {
		return err
	}
	log, book, err := a.writable("log.setaux")
	if err != nil {
		return err
	}
	aux, err := a.readBody()
	if err != nil {
		return err
	}
	if err := log.SetAux(a.Context(), book, seq, aux); err != nil {
		return err
	}
	a.WriteHeader(http.StatusNoContent)
	return nil
}
