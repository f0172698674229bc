// Flows is what the benchmarks of workflows and actors run beside themselves: a worker of the Dapr Go SDK that starts workflows and waits for
// their end, an application of it that hosts actors and calls them, and the service that Restate calls. It is a module of its own, so that foreign SDKs are not the product's.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"time"

	"github.com/dapr/durabletask-go/backend"
	"github.com/dapr/durabletask-go/workflow"
	restate "github.com/restatedev/sdk-go"
	"github.com/restatedev/sdk-go/server"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/quipu-run/quipu/bench/load"
)

func main() {
	if len(os.Args) < 2 {
		log.Fatal("flows dapr|sleep|wake|actors|restate")
	}
	var err error
	switch os.Args[1] {
	case "dapr":
		err = dapr(os.Args[2:])
	case "sleep":
		err = sleep(os.Args[2:])
	case "wake":
		err = wake(os.Args[2:])
	case "actors":
		err = actors(os.Args[2:])
	case "restate":
		err = serveRestate(os.Args[2:])
	default:
		err = fmt.Errorf("unknown command %q", os.Args[1])
	}
	if err != nil {
		log.Fatal(err)
	}
}

// dapr measures workflows of some steps, each an activity, through the SDK as any application would use it.
func dapr(args []string) error {
	flags := flag.NewFlagSet("dapr", flag.ExitOnError)
	address := flags.String("grpc", "127.0.0.1:50001", "the Dapr gRPC port")
	app := flags.String("app", "flows", "app id")
	steps := flags.Int("steps", 10, "activities of a workflow")
	conc := flags.Int("conc", 1, "workflows in flight")
	d := flags.Duration("d", 2*time.Second, "time")
	peer := flags.String("peer", "quipu", "name of the figure")
	durable := flags.String("durable", "on disk", "what an answer means")
	if err := flags.Parse(args); err != nil {
		return err
	}
	c, stop, err := worker(*address, *app)
	if err != nil {
		return err
	}
	defer stop()
	f := load.Run(load.Figure{Peer: *peer, Bench: "workflow", Variant: fmt.Sprintf("%d steps, Dapr Go SDK", *steps), Durable: *durable}, *conc, *d,
		func(ctx context.Context, _, _ int) error {
			id, err := c.ScheduleWorkflow(ctx, "Steps", workflow.WithInput(*steps))
			if err != nil {
				return err
			}
			meta, err := c.WaitForWorkflowCompletion(ctx, id, workflow.WithFetchPayloads(true))
			if err == nil && meta.Output.GetValue() != fmt.Sprint(*steps*(*steps-1)/2) {
				err = fmt.Errorf("workflow %s ended %s with %q", id, meta.RuntimeStatus, meta.Output.GetValue())
			}
			return err
		})
	return json.NewEncoder(os.Stdout).Encode(f)
}

// worker connects a worker of an application, which runs until stop, and a client.
func worker(address, app string) (c *workflow.Client, stop func(), err error) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, in, out any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, o ...grpc.CallOption) error {
			return invoke(metadata.AppendToOutgoingContext(ctx, "dapr-app-id", app), method, in, out, cc, o...)
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, stream grpc.Streamer, o ...grpc.CallOption) (grpc.ClientStream, error) {
			return stream(metadata.AppendToOutgoingContext(ctx, "dapr-app-id", app), desc, cc, method, o...)
		}))
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	stop = func() {
		cancel()
		_ = conn.Close() // nothing is under way any more
	}
	r := workflow.NewRegistry()
	if err := errors.Join(r.AddWorkflowN("Steps", stepsOf), r.AddWorkflowN("Sleep", sleepOf), r.AddActivityN("Step", func(ctx workflow.ActivityContext) (any, error) {
		var i int
		return i, ctx.GetInput(&i)
	})); err != nil {
		stop()
		return nil, nil, err
	}
	c = workflow.NewClientWithLogger(conn, silent{backend.DefaultLogger()})
	if err := c.StartWorker(ctx, r); err != nil {
		stop()
		return nil, nil, err
	}
	return c, stop, nil
}

func stepsOf(ctx *workflow.WorkflowContext) (any, error) {
	var n, sum int
	if err := ctx.GetInput(&n); err != nil {
		return nil, err
	}
	for i := range n {
		var got int
		if err := ctx.CallActivity("Step", workflow.WithActivityInput(i)).Await(&got); err != nil {
			return nil, err
		}
		sum += got
	}
	return sum, nil
}

// silent logs nothing but errors.
type silent struct{ backend.Logger }

func (silent) Debug(...any)          {}
func (silent) Debugf(string, ...any) {}
func (silent) Info(...any)           {}
func (silent) Infof(string, ...any)  {}

// Flow is a durable function of n journaled steps.
type Flow struct{}

// Steps runs n steps, each with its result in the journal.
func (Flow) Steps(ctx restate.Context, n int) (int, error) {
	sum := 0
	for i := range n {
		v, err := restate.Run(ctx, func(restate.RunContext) (int, error) { return i, nil })
		if err != nil {
			return 0, err
		}
		sum += v
	}
	return sum, nil
}

// Counter is a keyed object with durable state.
type Counter struct{}

// Add adds one.
func (Counter) Add(ctx restate.ObjectContext) (int, error) {
	n, err := restate.Get[int](ctx, "n")
	if err != nil {
		return 0, err
	}
	restate.Set(ctx, "n", n+1)
	return n + 1, nil
}

func serveRestate(args []string) error {
	flags := flag.NewFlagSet("restate", flag.ExitOnError)
	address := flags.String("listen", "127.0.0.1:9080", "where Restate calls")
	if err := flags.Parse(args); err != nil {
		return err
	}
	return server.NewRestate().WithLogger(slog.NewTextHandler(io.Discard, nil), false).
		Bind(restate.Reflect(Flow{})).Bind(restate.Reflect(Counter{})).Start(context.Background(), *address)
}
