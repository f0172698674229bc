package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// attachFlags are those of quipu run, with the names that dapr run has.
type attachFlags struct {
	appID     string
	resources string
	data      string
	sdk.Attachment
}

func (c *cli) runCommand() *cobra.Command {
	f := &attachFlags{}
	cmd := &cobra.Command{Use: "run --app-id ID [--app-port N] -- COMMAND [ARGS...]", Args: cobra.MinimumNArgs(1),
		Short: "Run a Dapr application of yours beside a node, which is started if none answers",
		RunE:  func(cmd *cobra.Command, args []string) error { return c.runApp(cmd, f, args) }}
	flags := cmd.Flags()
	flags.SetInterspersed(false)
	flags.StringVarP(&f.appID, "app-id", "a", "", "name of the application; its keys and subscriptions are kept under it")
	flags.IntVarP(&f.Port, "app-port", "p", 0, "port that the application listens on; 0: it only calls")
	flags.StringVar(&f.Protocol, "app-protocol", quipu.ProtocolHTTP, "what it speaks there: http or grpc")
	flags.IntVar(&f.Concurrency, "app-max-concurrency", 0, "calls at a time; 0 for as many as come")
	flags.IntVar(&f.DaprHTTPPort, "dapr-http-port", 0, "port of Dapr's HTTP API for it; 0 for any free one")
	flags.IntVar(&f.DaprGRPCPort, "dapr-grpc-port", 0, "port of Dapr's gRPC API for it; 0 for any free one")
	flags.StringVarP(&f.resources, "resources-path", "d", "", "folder with Dapr's resource files: subscriptions are read")
	flags.StringVar(&f.data, "data", ".quipu", "data of the node, if one is started")
	_ = cmd.MarkFlagRequired("app-id") // the flag is there
	return cmd
}

// runApp attaches, runs the command with what it needs to know, and ends when it does.
func (c *cli) runApp(cmd *cobra.Command, f *attachFlags, command []string) error {
	f.AppToken = os.Getenv("APP_API_TOKEN")
	var err error
	if f.Resources, err = readResources([]string{f.resources}, nil); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(cmd.Context())
	defer cancel(nil)
	stopNode, err := c.ensureNode(ctx, cancel, f.data)
	if err != nil {
		return err
	}
	defer stopNode()
	node, err := c.client()
	if err != nil {
		return err
	}
	var ended chan error
	for now, err := range node.Attach(ctx, f.appID, f.Attachment) {
		if err != nil {
			if ended == nil || ctx.Err() == nil {
				cancel(err) // the application goes with its node
			}
			break
		}
		switch now.State {
		case sdk.AttachedOpen:
			ended = make(chan error, 1)
			go func() {
				err := c.runChild(ctx, f, now, command)
				ended <- err
				cancel(err)
			}()
		case sdk.AttachedListening:
			c.note("%s is attached%s", f.appID, subscribedTo(now.Subscriptions))
			if now.Warning != "" {
				c.note("  %s", now.Warning)
			}
		}
	}
	cause := context.Cause(ctx)
	if ended == nil {
		return cause
	}
	err = <-ended
	if err == nil && cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return err
}

func subscribedTo(topics []string) string {
	if len(topics) == 0 {
		return ""
	}
	return ", and gets events of " + strings.Join(topics, ", ")
}

// childGrace is how long the application may take to end after it was asked.
const childGrace = 5 * time.Second

// runChild runs the application to its end. ^C asks it to end; its exit code becomes ours.
func (c *cli) runChild(ctx context.Context, f *attachFlags, at sdk.Attached, command []string) error {
	child := exec.CommandContext(ctx, command[0], command[1:]...)
	child.Stdin, child.Stdout, child.Stderr = c.in, c.out, c.err
	child.Cancel = func() error { return child.Process.Signal(syscall.SIGTERM) }
	child.WaitDelay = childGrace
	child.Env = append(os.Environ(), "APP_ID="+f.appID, "APP_PORT="+strconv.Itoa(f.Port), "APP_PROTOCOL="+f.Protocol,
		"DAPR_HTTP_PORT="+at.DaprHTTP, "DAPR_HTTP_ENDPOINT=http://127.0.0.1:"+at.DaprHTTP,
		"DAPR_GRPC_PORT="+at.DaprGRPC, "DAPR_GRPC_ENDPOINT=http://127.0.0.1:"+at.DaprGRPC, "DAPR_API_TOKEN="+at.Token)
	err := child.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return nil // it was asked to end
	case errors.As(err, &exit):
		c.note("%s ended: %s", f.appID, exit.ProcessState)
		return shown(exit.String())
	case err != nil:
		return &quipu.Error{Code: quipu.CodeUsage, Text: fmt.Sprintf("%q cannot be run", command[0]), Err: err, Hint: "give the command after --, as you would type it"}
	}
	return nil
}

// ensureNode starts a node of our own unless one answers, or was named.
func (c *cli) ensureNode(ctx context.Context, cancel context.CancelCauseFunc, data string) (stop func(), err error) {
	if c.node != "" || nodeAbove(".") != "" {
		return func() {}, nil
	}
	if conn, err := net.DialTimeout("tcp", addressDefault, time.Second); err == nil {
		return func() {}, conn.Close()
	}
	if data, err = filepath.Abs(data); err != nil {
		return nil, err
	}
	running, stopped := context.WithCancel(context.WithoutCancel(ctx))
	ready, ended := make(chan sdk.Node, 1), make(chan error, 1)
	go func() {
		err := runNode(running, NodeConfig{Data: data, Version: version, FreePorts: true, Port: 8080, DaprHTTPPort: 3500, DaprGRPCPort: 50001,
			observeFlags: observeFlags{TraceRatio: -1}, Ready: func(n sdk.Node) { ready <- n }})
		ended <- err
		cancel(err)
	}()
	select {
	case n := <-ready:
		c.node = n.HTTP
		c.note("started a node at http://%s, data in %s", n.HTTP, data)
		return func() { stopped(); <-ended }, nil
	case err := <-ended:
		stopped()
		return nil, err
	case <-ctx.Done():
		stopped()
		return nil, context.Cause(ctx)
	}
}
