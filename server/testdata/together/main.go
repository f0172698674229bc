// Command together does in one execution what package sdk/step offers.
package main

import (
	"context"
	"errors"
	"log"
	"time"

	"github.com/quipu-run/quipu/sdk/step"
)

func main() { log.Fatal(step.Serve(together)) }

func word(w string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return w, nil }
}

func together(c *step.Call) (any, error) {
	var a, b string
	err := c.All(
		func(c *step.Call) (err error) {
			c.Sleep(700 * time.Millisecond)
			a, err = step.Do(c, "a", word("A"))
			return err
		},
		func(c *step.Call) (err error) {
			b, err = step.Do(c, "b", word("B"))
			return err
		})
	if err != nil {
		return nil, err
	}
	child, err := step.Invoke[string](c, "child", map[string]int{"n": 1})
	if err != nil {
		return nil, err
	}
	once, err := step.Invoke[int](c, "counter", nil)
	if err != nil {
		return nil, err
	}
	_, bad := step.Do(c, "bad", func(context.Context) (any, error) { return nil, errors.New("broken") })
	_, late := step.WaitEvent[string](c, "never", 20*time.Millisecond)
	return []any{a, b, child, once, bad.Error(), errors.Is(late, step.ErrTimeout)}, nil
}
