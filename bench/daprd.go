package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	daprdVersion = "1.18.2" // as bench/daprd/go.mod says
	daprdBuild   = 15 * time.Minute
)

// buildDaprd compiles the sidecar of bench/daprd into the user's cache, once.
func buildDaprd(tell func(format string, args ...any)) (program string, err error) {
	return buildUpstream(tell, "daprd", ".")
}

// controlPlane are programs of Dapr: a sidecar for actors, and what those need besides it.
type controlPlane struct{ sidecar, placement, scheduler string }

func buildControlPlane(tell func(format string, args ...any)) (p controlPlane, err error) {
	if p.sidecar, err = buildUpstream(tell, "daprd-postgres", ".", "-tags", "postgres"); err != nil {
		return p, err
	}
	if p.placement, err = buildUpstream(tell, "placement", "github.com/dapr/dapr/cmd/placement"); err != nil {
		return p, err
	}
	p.scheduler, err = buildUpstream(tell, "scheduler", "github.com/dapr/dapr/cmd/scheduler")
	return p, err
}

// buildUpstream compiles a package of the module bench/daprd, or one that it requires.
func buildUpstream(tell func(format string, args ...any), name, pkg string, flags ...string) (program string, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	program = filepath.Join(cache, "quipu-bench", name+"-"+daprdVersion)
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	if err := os.MkdirAll(filepath.Dir(program), 0o755); err != nil {
		return "", err
	}
	tell("building %s %s into %s, once: two to three minutes, and some hundred modules", name, daprdVersion, program)
	ctx, cancel := context.WithTimeout(context.Background(), daprdBuild)
	defer cancel()
	half := program + "-" + strconv.Itoa(os.Getpid())
	args := append([]string{"build", "-trimpath", "-ldflags", "-s -w", "-o", half}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	cmd.Dir, cmd.Env = filepath.Join(folder(), "daprd"), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s, which needs the module proxy the first time; by hand: cd bench/daprd && CGO_ENABLED=0 go build %s -o %s %s : %w\n%s",
			name, strings.Join(flags, " "), program, pkg, err, out)
	}
	return program, os.Rename(half, program)
}

// redis is a server of its own.
type redis struct {
	cmd  *exec.Cmd
	port string
}

// startRedis starts one with a folder of its own; with none of the flags it does as it does by default: a snapshot of memory now and then.
func startRedis(dir string, flags ...string) (*redis, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s := &redis{exec.Command("redis-server", append([]string{"--port", port, "--bind", "127.0.0.1", "--dir", dir}, flags...)...), port}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if err := reachable(port); err != nil {
		end(s.cmd)
		return nil, fmt.Errorf("redis-server: %w", err)
	}
	return s, nil
}

// sidecar is one daprd.
type sidecar struct {
	cmd        *exec.Cmd
	http, grpc string // addresses
}

// What every sidecar of a group reads. They find each other in a file: multicast is not to be had everywhere.
const (
	daprdComponents = `apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: statestore}
spec:
  type: state.redis
  version: v1
  metadata:
    - {name: redisHost, value: "127.0.0.1:%[1]s"}
    - {name: redisPassword, value: ""}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: pubsub}
spec:
  type: pubsub.redis
  version: v1
  metadata:
    - {name: redisHost, value: "127.0.0.1:%[1]s"}
    - {name: redisPassword, value: ""}
`
	daprdConfig = `apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: bench}
spec:
  nameResolution:
    component: sqlite
    version: v1
    configuration: {connectionString: %q}
`
)

// group is a Redis and the sidecars that use it.
type group struct {
	redis    *redis
	sidecars []*sidecar
}

// startGroup starts a sidecar for each application, whose names are app-0 and so on.
func startGroup(program, dir string, ports []int, redisFlags ...string) (*group, error) {
	redis, err := startRedis(dir, redisFlags...)
	if err != nil {
		return nil, err
	}
	g := &group{redis: redis}
	flags, err := g.files(dir)
	for i := 0; i < len(ports) && err == nil; i++ {
		var s *sidecar
		if s, err = startSidecar(program, appName(i), ports[i], flags...); err != nil {
			err = fmt.Errorf("daprd of %s: %w", appName(i), err)
			break
		}
		g.sidecars = append(g.sidecars, s)
	}
	if err != nil {
		return nil, errors.Join(err, g.stop())
	}
	return g, nil
}

// files writes what the sidecars read, and answers the flags that say where it is.
func (g *group) files(dir string) (flags []string, err error) {
	resources, config := filepath.Join(dir, "resources"), filepath.Join(dir, "config.yaml")
	err = os.Mkdir(resources, 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(resources, "redis.yaml"), fmt.Appendf(nil, daprdComponents, g.redis.port), 0o600)
	}
	if err == nil {
		err = os.WriteFile(config, fmt.Appendf(nil, daprdConfig, filepath.Join(dir, "names.db")), 0o600)
	}
	return []string{"--resources-path", resources, "--config", config}, err
}

func appName(i int) string { return "app-" + strconv.Itoa(i) }

func startSidecar(program, app string, appPort int, flags ...string) (*sidecar, error) {
	s, err := newSidecar(program, app, appPort, flags...)
	if err != nil {
		return nil, err
	}
	return s, s.start()
}

// newSidecar has ports, so that its application can be told them before it runs.
func newSidecar(program, app string, appPort int, flags ...string) (*sidecar, error) {
	ports := make([]string, 4) // HTTP, gRPC, of sidecars among themselves, metrics
	for i := range ports {
		var err error
		if ports[i], err = freePort(); err != nil {
			return nil, err
		}
	}
	s := &sidecar{http: "127.0.0.1:" + ports[0], grpc: "127.0.0.1:" + ports[1]}
	s.cmd = exec.Command(program, append([]string{"--app-id", app, "--app-port", strconv.Itoa(appPort), "--dapr-http-port", ports[0], "--dapr-grpc-port", ports[1],
		"--dapr-internal-grpc-port", ports[2], "--metrics-port", ports[3], "--dapr-listen-addresses", "127.0.0.1", "--dapr-internal-grpc-listen-address", "127.0.0.1",
		"--metrics-listen-address", "127.0.0.1", "--log-level", "error"}, flags...)...)
	s.cmd.Env = append(os.Environ(), "DAPR_HOST_IP=127.0.0.1")
	s.cmd.Stdout, s.cmd.Stderr = io.Discard, os.Stderr
	return s, nil
}

// start returns when the sidecar is ready.
func (s *sidecar) start() error {
	if err := s.cmd.Start(); err != nil {
		return err
	}
	if err := s.ready(); err != nil {
		end(s.cmd)
		return err
	}
	return nil
}

// ready waits until its components are loaded and its application was found.
func (s *sidecar) ready() error {
	for start := time.Now(); ; time.Sleep(restPoll) {
		resp, err := http.Get("http://" + s.http + "/v1.0/healthz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusNoContent {
				return nil
			}
			err = errors.New(resp.Status)
		}
		if time.Since(start) > readyMax {
			return err
		}
	}
}

// pids are of all processes.
func (g *group) pids() []int {
	pids := []int{g.redis.cmd.Process.Pid}
	for _, s := range g.sidecars {
		pids = append(pids, s.cmd.Process.Pid)
	}
	return pids
}

// stop kills the sidecars, whose work is done, and has Redis end.
func (g *group) stop() error {
	for _, s := range g.sidecars {
		end(s.cmd)
	}
	err := g.redis.cmd.Process.Signal(syscall.SIGTERM)
	_ = g.redis.cmd.Wait() // it may end with a status for being asked to
	return err
}
