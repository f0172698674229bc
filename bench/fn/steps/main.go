// Command steps is a durable function that makes as many steps as the body says, which do nothing but count.
package main

import (
	"context"
	"log"
	"net/http"
	"strconv"

	"github.com/quipu-run/quipu/sdk/step"
)

func main() { log.Fatal(step.Serve(count)) }

func count(c *step.Call) (any, error) {
	steps, err := strconv.Atoi(string(c.Body()))
	if err != nil {
		return nil, &step.Refusal{Status: http.StatusBadRequest, Message: err.Error()}
	}
	sum := 0
	for i := range steps {
		n, err := step.Do(c, "step "+strconv.Itoa(i), func(context.Context) (int, error) { return i, nil })
		if err != nil {
			return nil, err
		}
		sum += n
	}
	return sum, nil
}
