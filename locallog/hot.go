package locallog

import (
	"cmp"
	"container/list"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/quipu-run/quipu"
)

// hot keeps the newest batches in memory, so that readers at the tail touch no disk and copy nothing. The log's mutex
// guards it.
type hot struct {
	bytesMax int
	bytes    int
	batches  []hotBatch // by place
	free     []byte     // of the last batch that went and that no reader ever saw; only the writer touches it
}

type hotBatch struct {
	segment uint32
	offset  int64
	bytes   []byte
	lent    *atomic.Bool // a reader got a part of it, and may keep that for ever
}

// buffer answers a buffer of size bytes for the next batch, whose header part is zero.
func (h *hot) buffer(size int) []byte {
	buf := h.free
	h.free = nil
	if cap(buf) < size || cap(buf) > 4*size && cap(buf) > recycledMax {
		return make([]byte, size, size+size/8)
	}
	clear(buf[:batchHeaderBytes])
	return buf[:size]
}

// add keeps a batch that nobody changes any more.
func (h *hot) add(segment uint32, offset int64, batch []byte) {
	h.batches = append(h.batches, hotBatch{segment, offset, batch, new(atomic.Bool)})
	h.bytes += len(batch)
	for h.bytes > h.bytesMax && len(h.batches) > 0 {
		oldest := &h.batches[0]
		h.bytes -= len(oldest.bytes)
		if !oldest.lent.Load() && cap(oldest.bytes) > cap(h.free) {
			h.free = oldest.bytes
		}
		oldest.bytes = nil
		h.batches = h.batches[1:]
	}
}

// find answers the bytes of a record, nil if its batch is not kept.
func (h *hot) find(p posting) []byte {
	i, found := slices.BinarySearchFunc(h.batches, p, func(b hotBatch, p posting) int {
		return cmp.Or(cmp.Compare(b.segment, p.segment), cmp.Compare(b.offset, int64(p.offset)))
	})
	if found || i == 0 { // a record never starts where a batch does
		return nil
	}
	b := h.batches[i-1]
	at := int64(p.offset) - b.offset
	if b.segment != p.segment || at+int64(p.size) > int64(len(b.bytes)) {
		return nil
	}
	b.lent.Store(true)
	return b.bytes[at : at+int64(p.size) : at+int64(p.size)]
}

// forget drops the batches of a deleted segment.
func (h *hot) forget(segment uint32) {
	h.batches = slices.DeleteFunc(h.batches, func(b hotBatch) bool {
		if b.segment == segment {
			h.bytes -= len(b.bytes)
		}
		return b.segment == segment
	})
}

// auxCache keeps hints for records, the least recently used going first.
type auxCache struct {
	mu       *sync.Mutex // guards below
	bytesMax int
	bytes    int
	order    *list.List // of auxEntry, newest first
	entries  map[auxKey]*list.Element
}

type auxKey struct {
	book quipu.Book
	seq  quipu.Seq
}

type auxEntry struct {
	key auxKey
	aux []byte
}

const auxOverhead = 128 // estimate of an entry beyond its bytes

func newAuxCache(bytesMax int) auxCache {
	return auxCache{mu: new(sync.Mutex), bytesMax: bytesMax, order: list.New(), entries: map[auxKey]*list.Element{}}
}

func (c *auxCache) set(key auxKey, aux []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[key]; e != nil {
		c.remove(e)
	}
	c.entries[key] = c.order.PushFront(auxEntry{key, slices.Clone(aux)})
	c.bytes += len(aux) + auxOverhead
	for c.bytes > c.bytesMax && c.order.Len() > 0 {
		c.remove(c.order.Back())
	}
}

func (c *auxCache) get(key auxKey) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[key]
	if e == nil {
		return nil, false
	}
	c.order.MoveToFront(e)
	return slices.Clone(e.Value.(auxEntry).aux), true
}

// remove drops an entry. c.mu is held.
func (c *auxCache) remove(e *list.Element) {
	entry := c.order.Remove(e).(auxEntry)
	delete(c.entries, entry.key)
	c.bytes -= len(entry.aux) + auxOverhead
}
