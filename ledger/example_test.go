package ledger_test

import (
	"context"
	"fmt"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/ledger"
	"github.com/quipu-run/quipu/xtest"
)

// A service writes what it does to a ledger. When it is taken over, the new owner closes the ledger of the old one, reads it
// to its end, and goes on in a ledger of its own.
func Example() {
	ctx := context.Background()
	var log quipu.Log = xtest.NewModel(xtest.NewClock(time.Now())) // or locallog.Open, or sdk.OpenLog of a node
	ledgers := ledger.New(ledger.Options{Log: log})

	old, err := ledgers.Create(ctx, "accounts-1")
	check(err)
	for _, entry := range []string{"open ana", "ana +5", "ana -2"} {
		_, err := old.Append(ctx, []byte(entry))
		check(err)
	}

	// The old owner does not answer any more. It may be dead, or only slow.
	before, err := ledgers.Open(ctx, "accounts-1")
	check(err)
	last, err := before.LastConfirmed(ctx)
	check(err)
	for e, err := range before.Read(ctx, 0, last) {
		check(err)
		fmt.Println(e.ID, string(e.Data))
	}
	own, err := ledgers.Create(ctx, "accounts-2")
	check(err)
	id, err := own.Append(ctx, []byte("ana +1"))
	check(err)
	fmt.Println(id, "in accounts-2")

	// It was only slow.
	_, err = old.Append(ctx, []byte("ana -3"))
	fmt.Println(quipu.CodeOf(err) == quipu.CodeFenced)
	// Output:
	// 0 open ana
	// 1 ana +5
	// 2 ana -2
	// 0 in accounts-2
	// true
}

// Followers get entries as they become durable, and end with the ledger.
func ExampleReader_Follow() {
	ctx := context.Background()
	ledgers := ledger.New(ledger.Options{Log: xtest.NewModel(xtest.NewClock(time.Now()))})
	w, err := ledgers.Create(ctx, "steps")
	check(err)
	r, err := ledgers.OpenReadOnly(ctx, "steps") // fences nobody
	check(err)
	followed := make(chan bool)
	go func() {
		for e, err := range r.Follow(ctx, 0) {
			check(err)
			fmt.Println(e.ID, string(e.Data))
		}
		close(followed)
	}()
	for _, step := range []string{"cut", "drill", "paint"} {
		_, err := w.Send(ctx, []byte(step)) // without a wait for each
		check(err)
	}
	last, err := w.Close(ctx) // waits for all
	check(err)
	<-followed
	fmt.Println("closed at", last)
	// Output:
	// 0 cut
	// 1 drill
	// 2 paint
	// closed at 2
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
