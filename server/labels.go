package server

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/quipu-run/quipu"
)

// Limits of labels, so that nobody but who deploys can make the metrics grow, and that not for ever.
const (
	functionsLabelled = 1000 // functions of the node with figures of their own
	labelOther        = "other"
)

// labels are the functions that have figures of their own: those that are deployed, tried for a deploy or attached. All else
// that has a name shares labelOther. A function that is gone takes its figures with it.
type labels struct {
	mu    sync.RWMutex
	known map[string]map[string]bool // by namespace
	size  int
	vecs  []deleter
}

type deleter interface {
	DeletePartialMatch(prometheus.Labels) int
}

func newLabels(vecs ...deleter) *labels {
	return &labels{known: map[string]map[string]bool{}, vecs: vecs}
}

// with runs observe with the label of a function, while that cannot be taken away.
func (l *labels) with(namespace, function string, observe func(label string)) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if !l.known[namespace][function] {
		function = labelOther
	}
	observe(function)
}

// has tells whether a function has a label of its own.
func (l *labels) has(namespace, function string) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.known[namespace][function]
}

// zeros is 0 for each function of a namespace that has a label of its own: a figure that is always there can be watched.
func (l *labels) zeros(namespace string) map[string]int {
	l.mu.RLock()
	defer l.mu.RUnlock()
	all := make(map[string]int, len(l.known[namespace]))
	for name := range l.known[namespace] {
		all[name] = 0
	}
	return all
}

// admit gives a function a label, if there is one left.
func (l *labels) admit(namespace, function string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(namespace, function)
}

// add is admit. The caller holds mu.
func (l *labels) add(namespace, function string) {
	if l.size >= functionsLabelled || l.known[namespace][function] {
		return
	}
	if l.known[namespace] == nil {
		l.known[namespace] = map[string]bool{}
	}
	l.known[namespace][function] = true
	l.size++
}

// set gives labels to the functions of a namespace, and takes those of all others away with their figures.
func (l *labels) set(namespace string, functions map[string]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name := range l.known[namespace] {
		if functions[name] {
			continue
		}
		delete(l.known[namespace], name)
		l.size--
		for _, v := range l.vecs {
			v.DeletePartialMatch(prometheus.Labels{"namespace": namespace, "function": name})
			v.DeletePartialMatch(prometheus.Labels{"namespace": namespace, "subscription": name})
		}
	}
	for name := range functions {
		l.add(namespace, name)
	}
}

// forget takes the figures of a namespace away.
func (l *labels) forget(namespace string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.size -= len(l.known[namespace])
	delete(l.known, namespace)
	for _, v := range l.vecs {
		v.DeletePartialMatch(prometheus.Labels{"namespace": namespace})
	}
}

// label keeps the labels at what is deployed and attached.
func (ns *namespace) label(functions []quipu.Function) {
	names := ns.attached.names()
	for _, f := range functions {
		names[f.Name] = true
	}
	ns.node.labels.set(ns.name, names)
}

// names are the app ids of what is attached.
func (s *attachments) names() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]bool, len(s.of))
	for name := range s.of {
		all[name] = true
	}
	return all
}
