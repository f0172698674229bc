// Package topic is the view of events: topics with dense offsets, durable subscriptions, and what is done of them.
//
// An event is published by an operation of a transaction, so it is there exactly when the transaction committed. It
// gets the next offset of its topic when its record is applied: offsets start at 1 and have no gaps. Events are
// copied into the view's store and leave it by retention, so neither a slow subscriber nor a long delay holds back
// the trimming of the log (docs/decisions/events-in-the-view.md).
//
// A subscription has a floor, below which every event is done or parked, the events above it that are done, and the
// parked ones that wait for another attempt. Settle and Advance change that inside a transaction, and only under the
// epoch the events were delivered under: an acknowledgement either is in the same record as the effects of the
// call, or it is not there at all. This package delivers nothing; it stores what package trigger decides.
//
// After a crash everything acknowledged is there, as with every view.
package topic

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"unicode"
	"unicode/utf8"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/delivery"
	"github.com/quipu-run/quipu/view"
)

// Name is the name of the view.
const Name = "topic"

// View is the view.
type View struct {
	book  *view.Book
	heads map[string]head // of all topics; the applier's own
	count atomic.Int64    // of topics

	mu      sync.Mutex
	known   map[string]bool // topics
	waiting map[string]chan struct{}
	news    map[string]struct{}         // topics published to by the record being applied
	moved   []delivery.Subscription     // subscriptions made, moved or removed by it
	follow  func(delivery.Subscription) // told of those
	delayed chan struct{}               // has one when a message was delayed
}

// New makes the machine of the view.
func New() *View {
	return &View{heads: map[string]head{}, known: map[string]bool{}, waiting: map[string]chan struct{}{},
		news: map[string]struct{}{}, follow: func(delivery.Subscription) {}, delayed: make(chan struct{}, 1)}
}

// Name is the constant Name.
func (v *View) Name() string { return Name }

// Load takes the heads of topics from the store.
func (v *View) Load(r view.Reader) error {
	return r.Scan(Name, headPrefix, func(key string, value []byte) error {
		h, err := readHead(value)
		v.setHead(key[len(headPrefix):], h)
		return err
	})
}

// Start follows book from now on. moved is told of each subscription that a record made, moved or removed, with
// Epoch 0 for the last; it must not wait for a commit.
func (v *View) Start(book *view.Book, moved func(delivery.Subscription)) {
	v.book = book
	v.follow = moved
	v.mu.Lock()
	v.moved = nil // by replay: whoever follows has yet to ask what there is
	v.mu.Unlock()
	book.OnApply(Name, v.applied)
}

// applied wakes those who wait for what a record brought.
func (v *View) applied() error {
	v.mu.Lock()
	for topic := range v.news {
		if ch := v.waiting[topic]; ch != nil {
			close(ch)
			delete(v.waiting, topic)
		}
	}
	clear(v.news)
	moved := v.moved
	v.moved = nil
	v.mu.Unlock()
	for _, s := range moved {
		v.follow(s)
	}
	return nil
}

// Wait is closed when something was published to topic after the call.
func (v *View) Wait(topic string) <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	ch := v.waiting[topic]
	if ch == nil {
		ch = make(chan struct{})
		v.waiting[topic] = ch
	}
	return ch
}

// Delayed has something when a message was delayed since it was last taken from.
func (v *View) Delayed() <-chan struct{} { return v.delayed }

// Keys of the view. A topic's name has no NUL.
const (
	headPrefix    = "t/" // topic: its head
	basePrefix    = "b/" // topic: where its events begin
	declPrefix    = "d/" // topic: how an application declares it, JSON
	eventPrefix   = "e/" // topic, NUL, offset: the event
	delayedPrefix = "l/" // topic, NUL, id: a delayed message
	duePrefix     = "w/" // due time, topic, NUL, id: nothing
	subPrefix     = "s/" // topic, NUL, subscription: its epoch and function
	floorPrefix   = "f/" // topic, NUL, subscription: its floor
	donePrefix    = "a/" // topic, NUL, subscription, NUL, offset: nothing
	parkedPrefix  = "r/" // topic, NUL, subscription, NUL, offset: the attempts so far
)

// ordered is a number whose bytes sort as it does.
func ordered(n uint64) string {
	var b [8]byte
	for i := range b {
		b[i] = byte(n >> (56 - 8*i))
	}
	return string(b[:])
}

func fromOrdered(s string) (n uint64) {
	for i := range len(s) {
		n = n<<8 | uint64(s[i])
	}
	return n
}

func eventKey(topic string, offset uint64) string {
	return eventPrefix + topic + "\x00" + ordered(offset)
}

func subName(topic, name string) string { return topic + "\x00" + name }

// head is where a topic ends.
type head struct {
	born  quipu.Seq // of the record that made it: a topic of the same name made later is another one
	last  uint64    // offset of the newest event ever
	total sums      // of all events ever
}

func (h head) encode() []byte {
	return writer(nil).uint(uint64(h.born)).uint(h.last).sums(h.total)
}

func readHead(value []byte) (head, error) {
	r := &reader{rest: value}
	h := head{born: quipu.Seq(r.uint()), last: r.uint(), total: r.sums()}
	return h, r.end()
}

// base is where the events of a topic that are kept begin.
type base struct {
	first  uint64 // offset
	before sums   // of all events before it
}

func (b base) encode() []byte { return writer(nil).uint(b.first).sums(b.before) }

func readBase(value []byte) (base, error) {
	r := &reader{rest: value}
	b := base{first: r.uint(), before: r.sums()}
	return b, r.end()
}

func (v *View) setHead(topic string, h head) {
	v.heads[topic] = h
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.known[topic] {
		v.known[topic] = true
		v.count.Add(1)
	}
}

func (v *View) dropHead(topic string) {
	delete(v.heads, topic)
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.known[topic] {
		delete(v.known, topic)
		v.count.Add(-1)
	}
}

func (v *View) isKnown(topic string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.known[topic]
}

// checkName refuses what cannot be a topic's name. CodeTopicName.
func checkName(name string) error {
	bad := name == "" || len(name) > quipu.TopicNameMax || !utf8.ValidString(name) ||
		strings.HasPrefix(name, quipu.PlatformTopicStart) || strings.ContainsFunc(name, unicode.IsControl)
	if !bad {
		return nil
	}
	return &quipu.Error{Code: quipu.CodeTopicName, Op: "topic.name",
		Text: fmt.Sprintf("%.80q cannot be the name of a topic", name), Hint: quipu.Codes[quipu.CodeTopicName].Why}
}

var errOp = errors.New("malformed operation of the topic view")
