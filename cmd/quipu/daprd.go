package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/quipu-run/quipu/gateway/dapr"
	"github.com/quipu-run/quipu/internal/peers"
	"github.com/quipu-run/quipu/sdk"
)

// daprdCommand takes the place of the upstream sidecar: same flags, same lines, same ends.
func (c *cli) daprdCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "daprd --app-id ID [--app-port N] [FLAGS OF DAPRD]", Short: "Be the Dapr sidecar of an application: at the node in QUIPU_NODE, or with a node of its own",
		DisableFlagParsing: true, Args: cobra.ArbitraryArgs}
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return c.daprd(cmd, args) }
	return cmd
}

func (c *cli) daprd(cmd *cobra.Command, args []string) error {
	fs, f := newDaprdFlags()
	fs.AddFlagSet(cmd.Root().PersistentFlags())
	fs.SetOutput(io.Discard)
	err := fs.Parse(twoDashes(args))
	switch {
	case errors.Is(err, pflag.ErrHelp):
		_, err = fmt.Fprintf(c.out, "%s\n\nUsage:\n  quipu %s\n\nFlags:\n%s", cmd.Short, cmd.Use, fs.FlagUsages())
		return err
	case err != nil:
		return misuse(err)
	case fs.NArg() > 0:
		return usage("daprd takes flags alone, not %q", fs.Arg(0))
	}
	for _, name := range daprdIgnored {
		if fs.Changed(name) {
			c.note("warning: --%s makes no difference here", name)
		}
	}
	switch {
	case f.version:
		_, err = fmt.Fprintln(c.out, dapr.RuntimeVersion)
	case f.buildInfo:
		_, err = fmt.Fprintf(c.out, "Version: %s\nQuipu: %s\n", dapr.RuntimeVersion, version)
	case f.await:
		err = awaitDaprd(cmd.Context(), f.httpPort, c.err)
	default:
		err = c.beDaprd(cmd.Context(), f, fs.Changed("metrics-port"))
	}
	return err
}

// beDaprd ends as daprd does: what makes it impossible to go on is the last line of the log, and exit code 1.
func (c *cli) beDaprd(ctx context.Context, f *daprdFlags, strict bool) error {
	to := c.out
	if f.logFile != "" {
		file, err := os.OpenFile(f.logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			return err
		}
		defer file.Close()
		to = file
	}
	log, err := newDaprdLog(to, f.logLevel, f.logJSON, f.appID)
	if err != nil {
		return err
	}
	d := &daprd{c: c, f: f, log: log, strict: strict, began: time.Now()}
	d.info("Starting Dapr Runtime -- version %s -- commit quipu-%s", dapr.RuntimeVersion, version)
	d.info("Log level set to: %s", f.logLevel)
	if err := d.run(ctx); err != nil {
		log.Log(ctx, levelFatal, "Fatal error from runtime: "+reason(err))
		return shown(err.Error())
	}
	d.info("Daprd shutdown gracefully")
	return nil
}

// daprd is one sidecar.
type daprd struct {
	c      *cli
	f      *daprdFlags
	log    *slog.Logger
	began  time.Time
	strict bool // the port of metrics was named
	client *sdk.Client
	node   sdk.Node
	member *peers.Member // nil beside a node of somebody else
	doors  doors
	tasks  sync.WaitGroup

	mu     sync.Mutex
	unwell chan struct{} // guarded by mu; closed while the application is not well
}

func (d *daprd) info(format string, args ...any) { d.log.Info(fmt.Sprintf(format, args...)) }

// run attaches until it is asked to end, by a signal or by the application.
func (d *daprd) run(ctx context.Context) (err error) {
	if err := d.prepare(); err != nil {
		return err
	}
	attached, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	stop, err := d.openNode(attached, end)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	defer d.tasks.Wait()
	defer d.doors.close()
	over := make(chan struct{})
	defer close(over)
	d.tasks.Go(func() {
		select {
		case <-ctx.Done():
			d.info("Received a signal to end; beginning shutdown")
			d.blockShutdown(over)
			end(nil)
		case <-over:
		}
	})
	return d.attach(attached, end)
}

// prepare reads the flags and the files that they name.
func (d *daprd) prepare() (err error) {
	if err := d.f.settle(os.Getenv("DAPR_API_TOKEN"), os.Getenv("APP_API_TOKEN")); err != nil {
		return err
	}
	d.info("standalone mode configured")
	d.info("app id: %s", d.f.appID)
	if err := d.f.load(os.LookupEnv, os.Environ); err != nil {
		return err
	}
	if len(d.f.Listen) == 0 {
		d.f.Listen = loopbacks()
	}
	if d.f.Socket != "" {
		d.f.Socket, err = filepath.Abs(d.f.Socket)
	}
	return err
}

// attach is one with the node until attached ends, the application asks for the end, or it cannot go on.
func (d *daprd) attach(attached context.Context, end context.CancelCauseFunc) error {
	var failed error
	for now, err := range d.client.Attach(attached, d.f.appID, d.f.Attachment) {
		if err != nil {
			failed = err
			break
		}
		if failed = d.follow(attached, now); failed != nil || now.State == sdk.AttachedShutdown {
			break
		}
	}
	asked := attached.Err() != nil
	end(nil)
	d.info("Dapr is shutting down")
	if cause := context.Cause(attached); asked && !errors.Is(cause, context.Canceled) {
		return cause
	}
	if asked {
		return nil
	}
	return failed
}

// follow does what is to be done when the application stands as it is told.
func (d *daprd) follow(ctx context.Context, now sdk.Attached) error {
	switch now.State {
	case sdk.AttachedOpen:
		return d.opened(ctx, now)
	case sdk.AttachedFound:
		d.info("application discovered on port %d", d.f.Port)
		d.initialized()
	case sdk.AttachedListening:
		d.setWell(true)
		if len(now.Subscriptions) > 0 {
			d.info("app is subscribed to the following topics: [[%s]]", strings.Join(now.Subscriptions, "] ["))
		}
		if now.Warning != "" {
			d.log.Warn("failed to subscribe to topics: " + now.Warning)
		}
	case sdk.AttachedUnwell:
		d.log.Warn("App reported unhealthy: it gets no calls and no events until it is well again")
		d.setWell(false)
	case sdk.AttachedShutdown:
		d.info("The application asked for the end; beginning shutdown")
	}
	return nil
}

// opened is when the Dapr ports answer.
func (d *daprd) opened(ctx context.Context, now sdk.Attached) error {
	f := d.f
	if f.Socket != "" {
		d.info("API gRPC server is running on a Unix Domain Socket")
		d.info("HTTP server is running on a Unix Domain Socket")
	} else {
		d.info("API gRPC server is running on port %s", now.DaprGRPC)
		d.info("HTTP server is running on port %s", now.DaprHTTP)
	}
	if f.Concurrency > 0 {
		d.info("app max concurrency set to %d", f.Concurrency)
	}
	if err := d.openDoors(now); err != nil {
		return err
	}
	if d.member != nil {
		if err := d.member.Announce(peers.Peer{App: f.appID, HTTP: d.node.DaprHTTP, GRPC: d.node.DaprGRPC, Token: d.c.token}); err != nil {
			return fmt.Errorf("tell others on this machine of the application: %w", err)
		}
	}
	if len(f.resources)+len(f.configs) > 0 {
		d.tasks.Go(func() { d.watch(ctx, now.ID) })
	}
	if f.Port == 0 {
		d.initialized()
		return nil
	}
	d.info("application protocol: %s. waiting on port %d.  This will block until the app is listening on that port.", f.Protocol, f.Port)
	return nil
}

func (d *daprd) initialized() {
	d.info("dapr initialized. Status: Running. Init Elapsed %dms", time.Since(d.began).Milliseconds())
}

// watch loads resource files again when they change.
func (d *daprd) watch(ctx context.Context, id string) {
	err := d.f.keepReading(ctx, func() (sdk.AttachedResources, error) { return d.f.read(os.LookupEnv, os.Environ) },
		func(r sdk.AttachedResources) error { return d.client.Reload(ctx, d.f.appID, id, r) },
		func(err error) {
			if err != nil {
				d.log.Error("resources changed and cannot be used; those before stay: " + reason(err))
				return
			}
			d.info("resources were loaded again")
		})
	if err != nil {
		d.log.Warn("resources are not watched any more: " + reason(err))
	}
}

// setWell notes how the application is, for who waits for the end.
func (d *daprd) setWell(well bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.unwell == nil || well {
		d.unwell = make(chan struct{})
	}
	if !well {
		close(d.unwell)
	}
}

// blockShutdown waits for as long as was asked for, or until the application is unwell, or over.
func (d *daprd) blockShutdown(over chan struct{}) {
	if d.f.block <= 0 {
		return
	}
	d.info("Blocking graceful shutdown for %s or until app reports unhealthy...", d.f.block)
	d.mu.Lock()
	unwell := d.unwell
	d.mu.Unlock()
	select {
	case <-over:
	case <-time.After(d.f.block):
		d.info("Block shutdown period expired, entering shutdown...")
	case <-unwell:
		d.info("App reported unhealthy, entering shutdown...")
	}
}

// awaitMax is how long --wait waits.
const awaitMax = time.Minute

// awaitDaprd returns when the sidecar at a port may be used. Like upstream it exits with 0 whether it did.
func awaitDaprd(ctx context.Context, port string, to io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, awaitMax)
	defer cancel()
	address := "http://localhost:" + port + "/v1.0/healthz/outbound"
	fmt.Fprintf(to, "Waiting for Dapr to be outbound ready (timeout: %.0f seconds): url=%s\n", awaitMax.Seconds(), address)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return err
		}
		if resp, err := http.DefaultClient.Do(r); err == nil {
			if err := resp.Body.Close(); err == nil && resp.StatusCode < 300 {
				fmt.Fprintln(to, "Dapr is outbound ready!")
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			fmt.Fprintln(to, "timeout waiting for Dapr to become outbound ready")
			return nil
		}
	}
}
