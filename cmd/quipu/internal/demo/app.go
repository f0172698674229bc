package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/examples"
	"github.com/quipu-run/quipu/internal/bundle"
	"github.com/quipu-run/quipu/sdk"
)

// load reads flights from a file, or those that come with the binary.
func load(name string) ([]Flight, error) {
	var r io.ReadCloser
	var err error
	if name == "" {
		r, err = examples.Flights.Open("flights/data/flights-20k.csv.gz")
	} else {
		r, err = os.Open(name)
	}
	if err != nil {
		return nil, err
	}
	defer r.Close()
	flights, err := ReadFlights(r)
	if err == nil && len(flights) == 0 {
		err = errors.New("there are no flights in the file")
	}
	return flights, err
}

// deploy sends the application in dir, or the embedded one, and empties what an earlier demo left in its data
// directory.
func deploy(ctx context.Context, client *sdk.Client, dir string) (err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "quipu-flights-"); err != nil {
			return fmt.Errorf("make a folder for the example: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		if err := unpackExample(dir); err != nil {
			return fmt.Errorf("unpack the example: %w", err)
		}
	}
	packed, err := bundle.Pack(ctx, dir)
	if err != nil {
		return err
	}
	if _, err := client.Deploy(ctx, "flights", packed); err != nil {
		return err
	}
	return empty(ctx, client)
}

// unpackExample copies the embedded example, without the flights.
func unpackExample(dir string) error {
	app, err := fs.Sub(examples.Flights, "flights")
	if err != nil {
		return err
	}
	if err := os.CopyFS(dir, app); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(dir, "data"))
}

// empty deletes the events and sums of an earlier run.
func empty(ctx context.Context, client *sdk.Client) error {
	if err := client.RemoveTopic(ctx, topicName); err != nil && quipu.CodeOf(err) != quipu.CodeNoTopic {
		return err
	}
	state := client.State("shared", "")
	for _, prefix := range []string{"airport", "summary"} {
		if err := emptyBelow(ctx, state, prefix); err != nil {
			return err
		}
	}
	return nil
}

func emptyBelow(ctx context.Context, state sdk.State, prefix string) error {
	for {
		page, err := state.List(ctx, quipu.ListRequest{Prefix: prefix})
		if err != nil {
			return err
		}
		for _, item := range page.Items {
			if err := state.Apply(ctx, quipu.Change{Key: item.Key, Delete: true}); err != nil {
				return err
			}
		}
		if page.Next == "" {
			return nil
		}
	}
}
