// Transform is an application of four functions in one program: the triggers in quipu.yaml say which paths each gets.
//
// One of them kills itself in a fifth of its calls, at any of its lines. There are no retries, locks or ids of seen texts
// here: the functions that change anything are declared atomic, so a call has done all or nothing.
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("POST /texts", answer(ingest))
	http.HandleFunc("POST /transform", answer(transform))
	http.HandleFunc("POST /total", answer(add))
	http.HandleFunc("GET /facts/{name}", answer(showFacts))
	http.HandleFunc("GET /total", answer(showTotal))
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// text is an object that comes in.
type text struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// ingest stores texts and publishes their names, in one commit.
func ingest(r *http.Request) (any, error) {
	var texts []text
	if err := json.NewDecoder(r.Body).Decode(&texts); err != nil {
		return nil, refuse(http.StatusBadRequest, err.Error())
	}
	for _, t := range texts {
		if err := put("text/"+t.Name, t.Text); err != nil {
			return nil, err
		}
		if err := publish("texts", t.Name); err != nil {
			return nil, err
		}
	}
	return map[string]int{"texts": len(texts)}, nil
}

func showFacts(r *http.Request) (any, error) {
	var f facts
	found, err := get("facts/"+r.PathValue("name"), &f)
	if err == nil && !found {
		err = refuse(http.StatusNotFound, "no such text, or not yet")
	}
	return f, err
}

func showTotal(*http.Request) (any, error) {
	var t total
	_, err := get("total", &t)
	return t, err
}
