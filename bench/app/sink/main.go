// Sink takes events and remembers how many came, when, and how long they were on their way. With /add it also adds
// their number to a key, through Dapr's state API: in an atomic function that and the acknowledgement are one record.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// seen is what came so far.
type seen struct {
	mu          sync.Mutex
	Events      int       `json:"events"`
	Calls       int       `json:"calls"`
	First, Last time.Time // when an event came
	Micros      []float64 `json:"micros"` // on the way, of events that say when they left
}

const latenciesMax = 200_000

var all seen

func (s *seen) add(body []byte, now time.Time) (n int) {
	n = bytes.Count(body, []byte(`"specversion"`))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.First.IsZero() {
		s.First = now
	}
	s.Last = now
	s.Events += n
	s.Calls++
	for rest := body; len(s.Micros) < latenciesMax; {
		_, after, found := bytes.Cut(rest, []byte(`"left":`))
		if !found {
			break
		}
		digits, _, _ := bytes.Cut(after, []byte("}"))
		if left, err := strconv.ParseInt(string(digits), 10, 64); err == nil && left > 0 {
			s.Micros = append(s.Micros, float64(now.UnixNano()-left)/1e3)
		}
		rest = after
	}
	return n
}

func main() {
	http.HandleFunc("POST /events", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		all.add(body, time.Now())
	})
	http.HandleFunc("POST /add", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = add(r.Header.Get("Quipu-Call-Id"), all.add(body, time.Now()))
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	http.HandleFunc("GET /seen/", func(w http.ResponseWriter, _ *http.Request) {
		all.mu.Lock()
		defer all.mu.Unlock()
		_ = json.NewEncoder(w).Encode(&all) // whoever asks has gone
	})
	panic(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil))
}

// add adds n to the key "events".
func add(call string, n int) error {
	text, err := state(call, "GET", "/events", "")
	if err != nil {
		return err
	}
	old, _ := strconv.Atoi(string(text)) // "" the first time
	_, err = state(call, "POST", "", fmt.Sprintf(`[{"key":"events","value":%d}]`, old+n))
	return err
}

func state(call, method, path, body string) ([]byte, error) {
	r, err := http.NewRequest(method, os.Getenv("DAPR_HTTP_ENDPOINT")+"/v1.0/state/statestore"+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("dapr-api-token", os.Getenv("DAPR_API_TOKEN"))
	r.Header.Set("Quipu-Call-Id", call)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, text)
	}
	return text, err
}
