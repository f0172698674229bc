package dapr

import (
	"bytes"
	"encoding/json"
	"net/http"

	"github.com/quipu-run/quipu"
)

// Words of an application's answer to an event.
const (
	wordSuccess = "SUCCESS"
	wordRetry   = "RETRY"
	wordDrop    = "DROP"
)

// Judge says what an application's answer to an event means, as Dapr reads it: 2xx is done, unless a JSON body has a
// status that says otherwise; 404 is that nobody will ever want it; all else is to be tried again.
func Judge(status int, body []byte) quipu.Outcome {
	switch {
	case status == http.StatusNotFound:
		return quipu.Drop
	case status < 200 || status > 299:
		return quipu.Retry
	}
	var reply struct {
		Status string `json:"status"`
	}
	// Like Dapr, the first value counts whatever follows it, and what is no object is no objection.
	if json.NewDecoder(bytes.NewReader(body)).Decode(&reply) != nil {
		return quipu.Ack
	}
	return outcome(reply.Status)
}

func outcome(word string) quipu.Outcome {
	switch word {
	case "", wordSuccess:
		return quipu.Ack
	case wordDrop:
		return quipu.Drop
	}
	return quipu.Retry
}

func wordOf(o quipu.Outcome) string {
	return map[quipu.Outcome]string{quipu.Ack: wordSuccess, quipu.Drop: wordDrop, quipu.Retry: wordRetry}[o]
}
