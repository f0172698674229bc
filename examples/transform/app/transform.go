package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"
)

// facts is what is known of a text.
type facts struct {
	Words   int    `json:"words"`
	Longest string `json:"longest"` // word; the first of several
	SHA256  string `json:"sha256"`
}

// announcement is an event of the topic facts.
type announcement struct {
	Name    string `json:"name"`
	Words   int    `json:"words"`
	Crashes bool   `json:"crashes"` // calls for it have failed before
}

// transform computes the facts of one text. Wherever it crashes, the text still waits and nothing has been
// written: the write, the event and the acknowledgement are one commit, after the reply.
func transform(r *http.Request) (any, error) {
	crash := newFate()
	name, err := event[string](r)
	if err != nil {
		return nil, err
	}
	crash.at(0)
	var content string
	if _, err := get("text/"+name, &content); err != nil {
		return nil, err
	}
	crash.at(1)
	f := study(content)
	if err := put("facts/"+name, f); err != nil {
		return nil, err
	}
	crash.at(2)
	again := r.Header.Get("Quipu-Attempt") != "1"
	if err := publish("facts", announcement{Name: name, Words: f.Words, Crashes: again}); err != nil {
		return nil, err
	}
	crash.at(3)
	return f, nil
}

func study(content string) facts {
	words := strings.Fields(content)
	longest := ""
	for _, word := range words {
		if len(word) > len(longest) {
			longest = word
		}
	}
	sum := sha256.Sum256([]byte(content))
	return facts{Words: len(words), Longest: longest, SHA256: hex.EncodeToString(sum[:])}
}

// total is the sum of all texts.
type total struct {
	Texts   int `json:"texts"`
	Words   int `json:"words"`
	Crashed int `json:"crashed"` // texts that took more than one call
}

// add adds up to a hundred texts to the total.
func add(r *http.Request) (any, error) {
	var events []struct {
		Data announcement `json:"data"`
	}
	if err := json.NewDecoder(r.Body).Decode(&events); err != nil {
		return nil, err
	}
	var t total
	if _, err := get("total", &t); err != nil {
		return nil, err
	}
	for _, e := range events {
		t.Texts++
		t.Words += e.Data.Words
		if e.Data.Crashes {
			t.Crashed++
		}
	}
	return t, put("total", t)
}
