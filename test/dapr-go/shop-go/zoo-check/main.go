// Program zoo-check calls the actors of zoo with the official SDK: zoo-check METHOD ID ARGUMENT WANT, where the last is what the method
// is to answer within a while. Prints "ok" last, or fails.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"sync"
	"time"

	"github.com/dapr/go-sdk/client"
)

func main() {
	c, err := client.NewClient()
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if os.Args[1] == "crowd" {
		crowd(c, os.Args[2])
	} else {
		method, id, argument, want := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
		await(c, method, id, argument, want)
	}
	fmt.Println("ok")
}

func call(c client.Client, method, id, argument string) (string, error) {
	r, err := c.InvokeActor(context.Background(), &client.InvokeActorRequest{ActorType: "goCat", ActorID: id, Method: method, Data: []byte(argument)})
	if err != nil {
		return err.Error(), err
	}
	return string(r.Data), nil
}

// await asks again until the answer is the one that is wanted: only what changes nothing is to be asked so.
func await(c client.Client, method, id, argument, want string) {
	var got string
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if got, _ = call(c, method, id, argument); got == want || method != "Calls" {
			break
		}
	}
	if got != want && want != "?" {
		log.Fatalf("%s of %s answered %q, not %q", method, id, got, want)
	}
}

// crowd calls one actor a hundred times at once: its turns are one after another, so that none sees what another has seen.
func crowd(c client.Client, id string) {
	var all sync.WaitGroup
	var mu sync.Mutex
	seen := map[int]bool{}
	for range 100 {
		all.Go(func() {
			text, err := call(c, "Feed", id, "1")
			var n int
			if err == nil {
				err = json.Unmarshal([]byte(text), &n)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil || seen[n] {
				log.Fatalf("%q, %v, seen before: %v", text, err, seen[n])
			}
			seen[n] = true
		})
	}
	all.Wait()
}
