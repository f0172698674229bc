package resiliency

import (
	"container/list"
	"sync"
)

// cache makes values when they are first asked for, and forgets the one that was not asked for longest.
type cache[K comparable, V any] struct {
	size  int
	build func(K) V

	mu    sync.Mutex // guards the fields below
	at    map[K]*list.Element
	order list.List // of entry, the newest first
}

type entry[K comparable, V any] struct {
	key   K
	value V
}

func newCache[K comparable, V any](size int, build func(K) V) *cache[K, V] {
	return &cache[K, V]{size: size, build: build, at: map[K]*list.Element{}}
}

func (c *cache[K, V]) get(k K) V {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.at[k]; e != nil {
		c.order.MoveToFront(e)
		return e.Value.(*entry[K, V]).value
	}
	if c.order.Len() >= c.size {
		oldest := c.order.Back()
		delete(c.at, oldest.Value.(*entry[K, V]).key)
		c.order.Remove(oldest)
	}
	v := c.build(k)
	c.at[k] = c.order.PushFront(&entry[K, V]{k, v})
	return v
}
