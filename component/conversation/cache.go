package conversation

import (
	"container/list"
	"crypto/sha256"
	"sync"
	"time"
)

// Limits of what is kept.
const (
	cacheEntriesMax = 1000
	cacheBytesMax   = 64 << 20
)

// cache keeps replies to the same request for a while, the newest ones if there are too many. The zero cache keeps nothing.
type cache struct {
	keep time.Duration

	mu    sync.Mutex // guards the fields below
	byKey map[[sha256.Size]byte]*list.Element
	order list.List // of *kept, the oldest first
	bytes int
}

type kept struct {
	key   [sha256.Size]byte
	reply []byte
	until time.Time
}

// get finds the reply to a request.
func (c *cache) get(request []byte, now time.Time) ([]byte, bool) {
	if c.keep == 0 {
		return nil, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expire(now)
	e := c.byKey[sha256.Sum256(request)]
	if e == nil {
		return nil, false
	}
	return e.Value.(*kept).reply, true
}

func (c *cache) put(request, reply []byte, now time.Time) {
	if c.keep == 0 || len(reply) > cacheBytesMax {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	key := sha256.Sum256(request)
	if old := c.byKey[key]; old != nil {
		c.remove(old)
	}
	for c.order.Len() >= cacheEntriesMax || c.bytes+len(reply) > cacheBytesMax {
		c.remove(c.order.Front())
	}
	if c.byKey == nil {
		c.byKey = map[[sha256.Size]byte]*list.Element{}
	}
	c.byKey[key] = c.order.PushBack(&kept{key, reply, now.Add(c.keep)})
	c.bytes += len(reply)
}

// expire drops what is too old: all live equally long, so that the oldest end first.
func (c *cache) expire(now time.Time) {
	for e := c.order.Front(); e != nil && !now.Before(e.Value.(*kept).until); e = c.order.Front() {
		c.remove(e)
	}
}

func (c *cache) remove(e *list.Element) {
	k := c.order.Remove(e).(*kept)
	delete(c.byKey, k.key)
	c.bytes -= len(k.reply)
}

func (c *cache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byKey, c.bytes = nil, 0
	c.order.Init()
}
