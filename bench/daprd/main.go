// Daprd is the upstream sidecar of Dapr with no more components than the bench needs: Redis and memory, and PostgreSQL with -tags postgres. It is the peer of
// `go run ./bench dapr` and `go run ./bench actor`, built from the module proxy. Upstream's own main insists on a hundred components, some of whose modules
// no proxy has; this one starts the same runtime with the same flags.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/dapr/components-contrib/nameresolution/mdns"
	namessqlite "github.com/dapr/components-contrib/nameresolution/sqlite"
	pubsubmemory "github.com/dapr/components-contrib/pubsub/in-memory"
	pubsubredis "github.com/dapr/components-contrib/pubsub/redis"
	statememory "github.com/dapr/components-contrib/state/in-memory"
	stateredis "github.com/dapr/components-contrib/state/redis"
	"github.com/dapr/dapr/cmd/daprd/options"
	"github.com/dapr/dapr/pkg/components/bindings"
	"github.com/dapr/dapr/pkg/components/configuration"
	"github.com/dapr/dapr/pkg/components/conversation"
	"github.com/dapr/dapr/pkg/components/crypto"
	"github.com/dapr/dapr/pkg/components/lock"
	middleware "github.com/dapr/dapr/pkg/components/middleware/http"
	"github.com/dapr/dapr/pkg/components/nameresolution"
	"github.com/dapr/dapr/pkg/components/pubsub"
	"github.com/dapr/dapr/pkg/components/secretstores"
	"github.com/dapr/dapr/pkg/components/state"
	"github.com/dapr/dapr/pkg/healthz"
	"github.com/dapr/dapr/pkg/metrics"
	"github.com/dapr/dapr/pkg/modes"
	"github.com/dapr/dapr/pkg/runtime"
	"github.com/dapr/dapr/pkg/runtime/registry"
	"github.com/dapr/dapr/pkg/security"
	"github.com/dapr/kit/concurrency"
	"github.com/dapr/kit/logger"
	"github.com/dapr/kit/signals"
	"go.opencensus.io/stats/view"
	"go.uber.org/automaxprocs/maxprocs"
)

func main() {
	if err := run(signals.Context()); err != nil {
		fmt.Fprintln(os.Stderr, "daprd:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if _, err := maxprocs.Set(); err != nil { // as upstream does
		return err
	}
	o, err := options.New(os.Args[1:])
	if err != nil {
		return err
	}
	o.Logger.SetAppID(o.AppID)
	if err := logger.ApplyOptionsToLoggers(&o.Logger); err != nil {
		return err
	}
	health := healthz.New()
	secure, err := security.New(ctx, security.Options{SentryAddress: o.SentryAddress, ControlPlaneTrustDomain: o.ControlPlaneTrustDomain,
		ControlPlaneNamespace: o.ControlPlaneNamespace, TrustAnchors: o.TrustAnchors, AppID: o.AppID, MTLSEnabled: o.EnableMTLS,
		Mode: modes.DaprMode(o.Mode), Healthz: health})
	if err != nil {
		return err
	}
	return concurrency.NewRunnerManager(secure.Run, func(ctx context.Context) error {
		handler, err := secure.Handler(ctx)
		if err != nil {
			return err
		}
		sidecar, err := runtime.FromConfig(ctx, config(o, handler, health))
		if err != nil {
			return err
		}
		return sidecar.Run(ctx)
	}).Run(ctx)
}

// config is upstream's for what the flags say.
func config(o *options.Options, secure security.Handler, health healthz.Healthz) *runtime.Config {
	return &runtime.Config{
		AppID: o.AppID, Mode: o.Mode, AllowedOrigins: o.AllowedOrigins, ResourcesPath: o.ResourcesPath, ComponentsPath: o.ComponentsPath, Config: o.Config,
		ActorsService: o.ActorsService, ActorsDisseminationTimeout: o.ActorsDisseminationTimeout, RemindersService: o.RemindersService,
		SchedulerAddress: o.SchedulerAddress, SchedulerStreams: o.SchedulerJobStreams, HotReloadReconcileInterval: o.HotReloadReconcileInterval,
		AppProtocol: o.AppProtocol, ApplicationPort: o.AppPort, AppMaxConcurrency: o.AppMaxConcurrency, AppChannelAddress: o.AppChannelAddress, AppSSL: o.AppSSL,
		DaprHTTPPort: o.DaprHTTPPort, DaprAPIGRPCPort: o.DaprAPIGRPCPort, DaprAPIListenAddresses: o.DaprAPIListenAddresses,
		DaprInternalGRPCPort: o.DaprInternalGRPCPort, DaprInternalGRPCListenAddress: o.DaprInternalGRPCListenAddress,
		DaprPublicPort: o.DaprPublicPort, DaprPublicListenAddress: o.DaprPublicListenAddress,
		ProfilePort: o.ProfilePort, EnableProfiling: o.EnableProfiling, EnableMTLS: o.EnableMTLS, SentryAddress: o.SentryAddress, ControlPlaneAddress: o.ControlPlaneAddress,
		MaxRequestSize: o.MaxRequestSize, ReadBufferSize: o.ReadBufferSize, UnixDomainSocket: o.UnixDomainSocket,
		DaprGracefulShutdownSeconds: o.DaprGracefulShutdownSeconds, DaprBlockShutdownDuration: o.DaprBlockShutdownDuration,
		DisableBuiltinK8sSecretStore: o.DisableBuiltinK8sSecretStore, EnableAPILogging: o.EnableAPILogging, DisableInitEndpoints: o.DisableInitEndpoints,
		EnableAppHealthCheck: o.EnableAppHealthCheck, AppHealthCheckPath: o.AppHealthCheckPath, AppHealthProbeInterval: o.AppHealthProbeInterval,
		AppHealthProbeTimeout: o.AppHealthProbeTimeout, AppHealthThreshold: o.AppHealthThreshold,
		Metrics: metrics.Options{Enabled: o.Metrics.Enabled(), Log: logger.NewLogger("dapr.runtime"), Port: o.Metrics.Port(), Namespace: metrics.DefaultMetricNamespace,
			Healthz: health, ListenAddress: o.Metrics.ListenAddress(), Meter: view.NewMeter()},
		Registry: components(logger.NewLogger("dapr.contrib")), Security: secure, Healthz: health,
	}
}

// components are those of the bench, under upstream's names.
func components(log logger.Logger) *registry.Options {
	state.DefaultRegistry.RegisterComponent(stateredis.NewRedisStateStore, "redis")
	state.DefaultRegistry.RegisterComponent(statememory.NewInMemoryStateStore, "in-memory")
	pubsub.DefaultRegistry.RegisterComponent(pubsubredis.NewRedisStreams, "redis")
	pubsub.DefaultRegistry.RegisterComponent(pubsubmemory.New, "in-memory")
	nameresolution.DefaultRegistry.RegisterComponent(mdns.NewResolver, "mdns")
	nameresolution.DefaultRegistry.RegisterComponent(namessqlite.NewResolver, "sqlite")
	state.DefaultRegistry.Logger, pubsub.DefaultRegistry.Logger, nameresolution.DefaultRegistry.Logger = log, log, log
	return registry.NewOptions().WithStateStores(state.DefaultRegistry).WithPubSubs(pubsub.DefaultRegistry).WithNameResolutions(nameresolution.DefaultRegistry).
		WithSecretStores(secretstores.DefaultRegistry).WithConfigurations(configuration.DefaultRegistry).WithLocks(lock.DefaultRegistry).
		WithBindings(bindings.DefaultRegistry).WithCryptoProviders(crypto.DefaultRegistry).WithHTTPMiddlewares(middleware.DefaultRegistry).
		WithConversations(conversation.DefaultRegistry)
}
