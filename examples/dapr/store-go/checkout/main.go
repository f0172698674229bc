// Program checkout places ten orders.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"strconv"
	"time"

	dapr "github.com/dapr/go-sdk/client"
)

const (
	ordersMax = 10
	pause     = 500 * time.Millisecond
	startMax  = 2 * time.Minute // the others may have to be compiled
)

func main() {
	log.SetFlags(0)
	c, err := dapr.NewClient()
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	for id := 1; id <= ordersMax; id++ {
		if err := place(c, id); err != nil {
			log.Fatal(err)
		}
		time.Sleep(pause)
	}
}

// place tries again while the order processor starts.
func place(c dapr.Client, id int) error {
	ctx, cancel := context.WithTimeout(context.Background(), startMax)
	defer cancel()
	order := &dapr.DataContent{ContentType: "application/json", Data: []byte(strconv.Itoa(id))}
	for {
		reply, err := c.InvokeMethodWithContent(ctx, "order-processor", "orders", "post", order)
		if err == nil {
			return show(id, reply)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("order %d: %w", id, err)
		}
	}
}

func show(id int, reply []byte) error {
	var got struct {
		Price   int
		SoldOut bool
		Receipt string
	}
	if err := json.Unmarshal(reply, &got); err != nil {
		return fmt.Errorf("order %d: %q: %w", id, reply, err)
	}
	if got.SoldOut {
		fmt.Printf("Order %d: sold out\n", id)
		return nil
	}
	fmt.Printf("Order %d costs %d, receipt %s\n", id, got.Price, got.Receipt)
	return nil
}
