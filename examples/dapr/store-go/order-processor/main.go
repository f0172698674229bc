// Program order-processor takes orders over HTTP: it takes a bell from the stock, asks the configuration for the price, keeps the order, and
// signs the receipt with a secret.
package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"strconv"
	"sync/atomic"

	dapr "github.com/dapr/go-sdk/client"
	"github.com/dapr/go-sdk/service/common"
	daprd "github.com/dapr/go-sdk/service/http"
)

const (
	configs      = "configstore"
	priceKey     = "bell.price"
	priceDefault = 10
)

// order is what is kept of one.
type order struct {
	ID      int    `json:"id"`
	Price   int64  `json:"price"`
	Left    int    `json:"left"`
	SoldOut bool   `json:"soldOut,omitempty"`
	Receipt string `json:"receipt,omitempty"`
}

type shop struct {
	dapr.Client
	price atomic.Int64
	key   string
}

func main() {
	log.SetFlags(0)
	ctx := context.Background()
	c, err := dapr.NewClient()
	if err != nil {
		log.Fatal(err)
	}
	s := &shop{Client: c}
	if err := s.setUp(ctx); err != nil {
		log.Fatal(err)
	}
	service := daprd.NewService("127.0.0.1:" + os.Getenv("APP_PORT"))
	if err := service.AddServiceInvocationHandler("/orders", s.take); err != nil {
		log.Fatal(err)
	}
	log.Fatal(service.Start())
}

// setUp reads the secret and the price, which may change at any time.
func (s *shop) setUp(ctx context.Context) error {
	secret, err := s.GetSecret(ctx, "vault", "receipts", nil)
	if err != nil {
		return err
	}
	if s.key = secret["key"]; s.key == "" {
		return errors.New("the secret has no key")
	}
	s.price.Store(priceDefault)
	item, err := s.GetConfigurationItem(ctx, configs, priceKey)
	if err != nil {
		return err
	}
	s.setPrice(item)
	_, err = s.SubscribeConfigurationItems(ctx, configs, []string{priceKey}, func(_ string, items map[string]*dapr.ConfigurationItem) {
		s.setPrice(items[priceKey])
	})
	return err
}

func (s *shop) setPrice(item *dapr.ConfigurationItem) {
	if item == nil || item.Value == "" {
		return
	}
	price, err := strconv.ParseInt(item.Value, 10, 64)
	if err != nil {
		fmt.Printf("The price %q is no number\n", item.Value)
		return
	}
	s.price.Store(price)
	fmt.Printf("A bell costs %d\n", price)
}

func (s *shop) take(ctx context.Context, in *common.InvocationEvent) (*common.Content, error) {
	o := order{Price: s.price.Load()}
	if err := json.Unmarshal(in.Data, &o.ID); err != nil {
		return nil, fmt.Errorf("an order is a number: %w", err)
	}
	left, err := s.InvokeMethodWithContent(ctx, "stock", "take", "post", &dapr.DataContent{ContentType: "application/json", Data: in.Data})
	if err == nil {
		err = json.Unmarshal(left, &o.Left)
	}
	if err != nil {
		return nil, err
	}
	if o.SoldOut = o.Left < 0; !o.SoldOut {
		o.Receipt = s.sign(o)
	}
	data, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	if err := s.SaveState(ctx, "statestore", "order-"+strconv.Itoa(o.ID), data, nil); err != nil {
		return nil, err
	}
	fmt.Printf("Order %d is saved\n", o.ID)
	return &common.Content{Data: data, ContentType: "application/json"}, nil
}

func (s *shop) sign(o order) string {
	h := hmac.New(sha256.New, []byte(s.key))
	fmt.Fprintf(h, "%d at %d", o.ID, o.Price)
	return hex.EncodeToString(h.Sum(nil))[:12]
}
