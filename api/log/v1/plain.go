package logv1

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
)

// MessageBytesMax is the largest message of the protocol: the largest record or batch, and room for its tags.
const MessageBytesMax = quipu.TxBytesMax + 4<<20

// NewDraft is a draft as a message, which shares its data.
func NewDraft(d *quipu.Draft) *Draft {
	m := &Draft{Data: d.Data, Tags: tagsOf(d.Tags), Kind: uint32(d.Kind), Version: uint32(d.Version)}
	if d.Cond != nil {
		m.Cond = &Cond{Tag: []byte(d.Cond.Tag), Last: uint64(d.Cond.Last)}
	}
	if d.Producer != (quipu.Producer{}) {
		m.Producer = NewProducer(d.Producer)
	}
	return m
}

// NewDrafts is NewDraft for a batch.
func NewDrafts(ds []quipu.Draft) []*Draft {
	out := make([]*Draft, len(ds))
	for i := range ds {
		out[i] = NewDraft(&ds[i])
	}
	return out
}

// Plain is the draft that the message is, which shares its data. CodeRecord.
func (d *Draft) Plain() (quipu.Draft, error) {
	if d.GetKind() > math.MaxUint8 || d.GetVersion() > math.MaxUint8 {
		return quipu.Draft{}, badKind(d.GetKind(), d.GetVersion())
	}
	out := quipu.Draft{Data: d.GetData(), Tags: plainTags(d.GetTags()), Kind: quipu.Kind(d.GetKind()), Version: uint8(d.GetVersion())}
	if c := d.GetCond(); c != nil {
		out.Cond = &quipu.Cond{Tag: string(c.GetTag()), Last: quipu.Seq(c.GetLast())}
	}
	out.Producer = d.GetProducer().Plain()
	return out, nil
}

func badKind(kind, version uint32) error {
	return &quipu.Error{Code: quipu.CodeRecord, Op: "log.append",
		Text: fmt.Sprintf("a record has a kind and a version of up to %d, not %d and %d", math.MaxUint8, kind, version)}
}

// PlainDrafts is Plain for a batch.
func PlainDrafts(ms []*Draft) ([]quipu.Draft, error) {
	out := make([]quipu.Draft, len(ms))
	for i, m := range ms {
		var err error
		if out[i], err = m.Plain(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// NewProducer is a producer as a message.
func NewProducer(p quipu.Producer) *Producer { return &Producer{Id: p.ID, Epoch: p.Epoch, N: p.N} }

// Plain is the producer that the message is; nil is the zero Producer.
func (p *Producer) Plain() quipu.Producer {
	return quipu.Producer{ID: p.GetId(), Epoch: p.GetEpoch(), N: p.GetN()}
}

// NewRecord is a record as a message, which shares its data.
func NewRecord(r *quipu.Record) *Record {
	return &Record{Seq: uint64(r.Seq), Data: r.Data, Tags: tagsOf(r.Tags), Stamp: r.Stamp, Kind: uint32(r.Kind), Version: uint32(r.Version)}
}

// Plain is the record of a book that the message is, which shares its data.
func (r *Record) Plain(book quipu.Book) quipu.Record {
	return quipu.Record{Book: book, Seq: quipu.Seq(r.GetSeq()), Kind: quipu.Kind(r.GetKind()), Version: uint8(r.GetVersion()),
		Stamp: r.GetStamp(), Tags: plainTags(r.GetTags()), Data: r.GetData()}
}

// NewOptions are a book's options as a message.
func NewOptions(o quipu.BookOptions) *BookOptions {
	return &BookOptions{MaxAgeNanos: int64(o.MaxAge), MaxBytes: o.MaxBytes, Quota: o.Quota}
}

// Plain are the options that the message is; nil bounds nothing.
func (o *BookOptions) Plain() quipu.BookOptions {
	return quipu.BookOptions{MaxAge: time.Duration(o.GetMaxAgeNanos()), MaxBytes: o.GetMaxBytes(), Quota: o.GetQuota()}
}

// NewBook is a description as a message.
func NewBook(b quipu.BookInfo) *Book {
	return &Book{Name: b.Name, Id: uint64(b.ID), Tail: uint64(b.Tail), Trim: uint64(b.Trim), Records: b.Records, Bytes: b.Bytes,
		Options: NewOptions(b.Options)}
}

// Plain is the description that the message is.
func (b *Book) Plain() quipu.BookInfo {
	return quipu.BookInfo{Name: b.GetName(), ID: quipu.Book(b.GetId()), Tail: quipu.Seq(b.GetTail()), Trim: quipu.Seq(b.GetTrim()),
		Records: b.GetRecords(), Bytes: b.GetBytes(), Options: b.GetOptions().Plain()}
}

// NewError is what a client is told of an error, as a message.
func NewError(code quipu.Code, text, hint string, seq quipu.Seq) *Error {
	return &Error{Code: string(code), Text: strings.ToValidUTF8(text, "?"), Hint: strings.ToValidUTF8(hint, "?"), Seq: uint64(seq)}
}

// Plain is the error that the message tells of.
func (e *Error) Plain() *quipu.Error {
	return &quipu.Error{Code: quipu.Code(e.GetCode()), Text: e.GetText(), Hint: e.GetHint(), Seq: quipu.Seq(e.GetSeq())}
}

// NewSeqs are seqs as they are in messages.
func NewSeqs(seqs []quipu.Seq) []uint64 {
	out := make([]uint64, len(seqs))
	for i, s := range seqs {
		out[i] = uint64(s)
	}
	return out
}

// PlainSeqs is NewSeqs the other way.
func PlainSeqs(in []uint64) []quipu.Seq {
	out := make([]quipu.Seq, len(in))
	for i, s := range in {
		out[i] = quipu.Seq(s)
	}
	return out
}

func tagsOf(tags []string) [][]byte {
	if len(tags) == 0 {
		return nil
	}
	out := make([][]byte, len(tags))
	for i, t := range tags {
		out[i] = []byte(t)
	}
	return out
}

func plainTags(tags [][]byte) []string {
	if len(tags) == 0 {
		return nil
	}
	out := make([]string, len(tags))
	for i, t := range tags {
		out[i] = string(t)
	}
	return out
}
