// Program stock knows how many bells there are. It is a gRPC application: others invoke its method "take".
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	dapr "github.com/dapr/go-sdk/client"
	"github.com/dapr/go-sdk/service/common"
	daprd "github.com/dapr/go-sdk/service/grpc"
	"github.com/google/uuid"
)

const (
	states     = "statestore"
	locks      = "lockstore"
	key        = "bells"
	bellsFirst = 8
	lockMax    = 10 // seconds
)

func main() {
	log.SetFlags(0)
	c, err := dapr.NewClient()
	if err != nil {
		log.Fatal(err)
	}
	s, err := daprd.NewService("127.0.0.1:" + os.Getenv("APP_PORT"))
	if err != nil {
		log.Fatal(err)
	}
	if err := s.AddServiceInvocationHandler("take", stock{c}.take); err != nil {
		log.Fatal(err)
	}
	log.Fatal(s.Start())
}

type stock struct{ dapr.Client }

// take takes one bell for an order, and answers how many are left; -1 if there was none. An order that asks again gets what it got. The lock
// keeps two instances of this program from taking the same bell.
func (s stock) take(ctx context.Context, in *common.InvocationEvent) (*common.Content, error) {
	var order int
	if err := json.Unmarshal(in.Data, &order); err != nil {
		return nil, fmt.Errorf("an order is a number: %w", err)
	}
	owner := uuid.NewString()
	if err := s.lock(ctx, owner); err != nil {
		return nil, err
	}
	left, err := s.takeFor(ctx, order)
	if _, unlockErr := s.UnlockAlpha1(ctx, locks, &dapr.UnlockRequest{ResourceID: key, LockOwner: owner}); err == nil {
		err = unlockErr
	}
	return &common.Content{Data: []byte(strconv.Itoa(left)), ContentType: "application/json"}, err
}

// lock waits until it is ours.
func (s stock) lock(ctx context.Context, owner string) error {
	for {
		got, err := s.TryLockAlpha1(ctx, locks, &dapr.LockRequest{ResourceID: key, LockOwner: owner, ExpiryInSeconds: lockMax})
		if err != nil || got.Success {
			return err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// takeFor changes the number of bells and what the order got together.
func (s stock) takeFor(ctx context.Context, order int) (int, error) {
	its := "taken-" + strconv.Itoa(order)
	if got, found, err := s.number(ctx, its); err != nil || found {
		return got, err
	}
	left, found, err := s.number(ctx, key)
	if err != nil {
		return 0, err
	}
	if !found {
		left = bellsFirst
	}
	if left == 0 {
		return -1, nil
	}
	value := []byte(strconv.Itoa(left - 1))
	err = s.ExecuteStateTransaction(ctx, states, nil, []*dapr.StateOperation{
		{Type: dapr.StateOperationTypeUpsert, Item: &dapr.SetStateItem{Key: key, Value: value}},
		{Type: dapr.StateOperationTypeUpsert, Item: &dapr.SetStateItem{Key: its, Value: value}},
	})
	if err == nil {
		fmt.Printf("Order %d takes a bell: %s left\n", order, value)
	}
	return left - 1, err
}

func (s stock) number(ctx context.Context, key string) (n int, found bool, err error) {
	item, err := s.GetState(ctx, states, key, nil)
	if err != nil || len(item.Value) == 0 {
		return 0, false, err
	}
	if n, err = strconv.Atoi(string(item.Value)); err != nil {
		err = fmt.Errorf("what is kept as %s: %w", key, err)
	}
	return n, true, err
}
