package sdk

import (
	"encoding/json"
	"time"

	"github.com/quipu-run/quipu"
)

// Book describes a book.
type Book struct {
	Name    string      `json:"name"`
	ID      string      `json:"id"` // 16 hexadecimal digits
	Tail    quipu.Seq   `json:"tail"`
	Trim    quipu.Seq   `json:"trim"`
	Records int64       `json:"records"`
	Bytes   int64       `json:"bytes"`
	Options BookOptions `json:"options"`
	Locked  bool        `json:"locked,omitempty"` // only the platform writes to it
	Sync    string      `json:"sync,omitempty"`   // when the node acknowledges: always or os
}

// BookOptions are quipu.BookOptions as JSON.
type BookOptions struct {
	MaxAge   quipu.Duration `json:"maxAge,omitzero"`
	MaxBytes quipu.Size     `json:"maxBytes,omitzero"`
	Quota    quipu.Size     `json:"quota,omitzero"`
}

// Contract is what the log knows them as.
func (o BookOptions) Contract() quipu.BookOptions {
	return quipu.BookOptions{MaxAge: o.MaxAge.Std(), MaxBytes: int64(o.MaxBytes), Quota: int64(o.Quota)}
}

// OptionsOf is the opposite of Contract.
func OptionsOf(o quipu.BookOptions) BookOptions {
	return BookOptions{MaxAge: quipu.Duration(o.MaxAge), MaxBytes: quipu.Size(o.MaxBytes), Quota: quipu.Size(o.Quota)}
}

// NewBook asks for a book.
type NewBook struct {
	Name    string      `json:"name"`
	Options BookOptions `json:"options,omitzero"`
}

// BookChange asks for other options of a book.
type BookChange struct {
	Options OptionsChange `json:"options"`
}

// OptionsChange are the options that change. A nil one stays, a zero removes the bound.
type OptionsChange struct {
	MaxAge   *quipu.Duration `json:"maxAge,omitempty"`
	MaxBytes *quipu.Size     `json:"maxBytes,omitempty"`
	Quota    *quipu.Size     `json:"quota,omitempty"`
}

// In is o after the change.
func (c OptionsChange) In(o BookOptions) BookOptions {
	if c.MaxAge != nil {
		o.MaxAge = *c.MaxAge
	}
	if c.MaxBytes != nil {
		o.MaxBytes = *c.MaxBytes
	}
	if c.Quota != nil {
		o.Quota = *c.Quota
	}
	return o
}

// Record is an entry of a book. It has Data, unless it was asked for in another form and can be written so.
type Record struct {
	Seq     quipu.Seq       `json:"seq"`
	Kind    string          `json:"kind"` // raw, tx, system
	Version int             `json:"version"`
	Time    time.Time       `json:"time"`
	Tags    []string        `json:"tags,omitempty"`
	Data    []byte          `json:"data,omitzero"` // base64
	Text    string          `json:"text,omitempty"`
	JSON    json.RawMessage `json:"json,omitempty"`
}

// Bytes are the data, in whatever form they came.
func (r Record) Bytes() []byte {
	switch {
	case r.JSON != nil:
		return r.JSON
	case r.Text != "":
		return []byte(r.Text)
	}
	return r.Data
}

// Forms of the data of records in JSON.
const (
	AsBase64 = "base64" // data, always
	AsText   = "text"   // text if it is UTF-8, else data
	AsJSON   = "json"   // json if it is JSON, else as AsText
)

// Draft is a record to be appended. Its data is in one of the three fields; none means empty data.
type Draft struct {
	Tags []string        `json:"tags,omitempty"`
	Data []byte          `json:"data,omitzero"` // base64
	Text *string         `json:"text,omitempty"`
	JSON json.RawMessage `json:"json,omitempty"` // any value
	Cond *Cond           `json:"cond,omitempty"`
}

// Cond is quipu.Cond: the record wins only if the newest record of the tag is last; zeros say that there is none.
type Cond struct {
	Tag  string    `json:"tag"`
	Last quipu.Seq `json:"last"`
}

// Producer is quipu.Producer: it makes an append that is sent again the same append.
type Producer struct {
	ID    uint64 `json:"id"`
	Epoch uint32 `json:"epoch"`
	N     uint64 `json:"n"`
}

// Batch is records that are appended together, all or none.
type Batch struct {
	Records  []Draft   `json:"records"`
	Producer *Producer `json:"producer,omitempty"`
}

// Appended tells where a record is.
type Appended struct {
	Seq quipu.Seq `json:"seq"`
}

// AppendedBatch tells where the records of a batch are, in its order.
type AppendedBatch struct {
	Seqs []quipu.Seq `json:"seqs"`
}

// TrimTo says up to where a book, or the stream of a tag, is trimmed.
type TrimTo struct {
	Upto quipu.Seq `json:"upto"`
	Tag  string    `json:"tag,omitempty"` // none: the book with all its streams
}

// LogStats describe the log of the node. Counts are since the node's start.
type LogStats struct {
	Sync         string `json:"sync"` // when an append is acknowledged: always is after fdatasync, os before
	Books        int    `json:"books"`
	Records      int64  `json:"records"`      // of all books, above their trim points
	LiveBytes    int64  `json:"liveBytes"`    // of these
	Segments     int    `json:"segments"`     // files
	SegmentBytes int64  `json:"segmentBytes"` // on disk, what waits for use included
	SpareBytes   int64  `json:"spareBytes"`   // on disk, of deleted segments that are kept to be written over
	Kept         int    `json:"keptSegments"` // of the segments, those that moved records are in
	IndexBytes   int64  `json:"indexBytes"`   // in memory, not yet saved
	QueueBytes   int64  `json:"queueBytes"`   // of appends that wait, or are being written
	DiskFree     uint64 `json:"diskFree"`     // bytes; 0 if the file system cannot tell
	ReadOnly     bool   `json:"readOnly"`     // the free space is under the reserve: appends are refused

	Appends     uint64 `json:"appends"` // records and batches, won or lost
	Appended    uint64 `json:"appended"`
	Written     uint64 `json:"writtenBytes"`
	Commits     uint64 `json:"commits"` // appends / commits is the mean size of a group
	Syncs       uint64 `json:"syncs"`
	Rolls       uint64 `json:"rolls"` // segments that were filled
	Checkpoints uint64 `json:"checkpoints"`
	Deleted     uint64 `json:"deletedSegments"`
	Recycled    uint64 `json:"recycledSegments"`
	Relocated   uint64 `json:"relocatedSegments"` // deleted after what was live in them was moved
	Moved       uint64 `json:"movedRecords"`
}
