package quipu

// Tx is what one commit asks for. It becomes one record of KindTx, and is judged
// once, in log order, by internal/resolve: it loses if a later committed record wrote what it
// read, and then none of its operations happen.
type Tx struct {
	// Snapshot is the seq at which all reads were answered.
	Snapshot Seq
	// Reads are conflict keys read one by one; a miss is a read too.
	Reads []string
	// Later are conflict keys that were read as a record after Snapshot left them: one that was on its way to disk then.
	Later []LaterRead
	// Ranges are spans of conflict keys that were listed.
	Ranges []KeyRange
	// Writes are conflict keys that the operations change.
	Writes []string
	// NotAfter, if set, voids the record when its stamp (Unix nanoseconds) is at or after it:
	// something read would have expired by then.
	NotAfter int64
	// Ops are handed to their views in order.
	Ops []Op
	// Tags of the record: its topics and its function, never keys or calls.
	Tags []string
}

// LaterRead is a conflict key as the record At wrote it.
type LaterRead struct {
	Key string
	At  Seq
}

// KeyRange is the span From <= key < To. To "" is open.
type KeyRange struct{ From, To string }

// Contains tells whether key lies in the span.
func (r KeyRange) Contains(key string) bool {
	return key >= r.From && (r.To == "" || key < r.To)
}

// Op is one change of one view. Only that view reads Body.
type Op struct {
	View string
	Body []byte
}
