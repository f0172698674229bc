package main

import (
	"net"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/pool"
	"github.com/quipu-run/quipu/sdk"
)

func (c *cli) nodeCommands() []*cobra.Command {
	serve := &cobra.Command{Use: "serve --data DIR", Short: "Run a node", Args: cobra.NoArgs, SuggestFor: []string{"start", "up", "server"}}
	serving := nodeFlags(serve)
	serve.RunE = func(cmd *cobra.Command, _ []string) error {
		if serving.Data == "" {
			return &quipu.Error{Code: quipu.CodeUsage, Text: "serve needs a directory for its data", Hint: "quipu serve --data DIR"}
		}
		serving.RequireToken = true
		return c.runNode(cmd, serving)
	}
	dev := &cobra.Command{Use: "dev [DIR]", Short: "Run a node for the application in DIR, and deploy it at every save", Args: cobra.MaximumNArgs(1)}
	developing := nodeFlags(dev)
	dev.RunE = func(cmd *cobra.Command, args []string) error { return c.dev(cmd, developing, append(args, ".")[0]) }
	return []*cobra.Command{c.demoCommand(), dev, serve}
}

func nodeFlags(cmd *cobra.Command) *NodeConfig {
	n := &NodeConfig{Version: version}
	f := cmd.Flags()
	f.StringVar(&n.Data, "data", "", "directory of the node's data")
	f.StringVar(&n.Listen, "listen", "127.0.0.1", "host to listen on")
	f.IntVar(&n.Port, "port", 8080, "port for people and callers; 0 for any free one")
	f.IntVar(&n.DaprHTTPPort, "dapr-http-port", 3500, "port of Dapr's HTTP API; 0 for any free one")
	f.IntVar(&n.DaprGRPCPort, "dapr-grpc-port", 50001, "port of Dapr's gRPC API; 0 for any free one")
	f.StringVar(&n.Sync, "sync", "always", "when a write is acknowledged: always, when it is on disk; os, when the kernel has it: kill -9 loses nothing, a power cut the newest")
	f.IntVar(&n.CallsMax, "calls-max", pool.CallsMaxDefault, "calls of a namespace that run at a time; others wait in turns")
	f.IntVar(&n.InstancesMax, "instances-max", pool.InstancesMaxDefault, "instances of a namespace")
	f.StringVar(&n.Components, "components", "", "Dapr components that the log serves: log, all of local development, or strict, only those that mean no other server (QUIPU_COMPONENTS; log)")
	f.StringVar(&n.Sandbox, "sandbox", "auto", "walls around functions: auto, all that can be had here (quipu doctor lists them); off")
	f.StringVar(&n.TokenFile, "token-file", "", "file with the token that the admin API asks for")
	n.register(cmd)
	return n
}

// runNode runs a node and tells where it is.
func (c *cli) runNode(cmd *cobra.Command, n *NodeConfig) error {
	ready := n.Ready
	n.Ready = func(node sdk.Node) {
		c.note("quipu %s is ready\n  routes and admin API  http://%s\n  Dapr HTTP             http://%s\n  Dapr gRPC             %s\n  data                  %s", node.Version, node.HTTP, node.DaprHTTP, node.DaprGRPC, n.Data)
		if ready != nil {
			ready(node)
		}
	}
	return runNode(cmd.Context(), *n)
}

// freePorts makes default ports that are taken any free ones: a demo must work the first time. A port that the
// user named stays.
func freePorts(cmd *cobra.Command, n *NodeConfig) {
	for flag, port := range map[string]*int{"port": &n.Port, "dapr-http-port": &n.DaprHTTPPort, "dapr-grpc-port": &n.DaprGRPCPort} {
		if !cmd.Flags().Changed(flag) && probe(n.Listen, *port) != nil {
			*port = 0
		}
	}
}

// probe listens for a moment.
func probe(host string, port int) error {
	l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return err
	}
	return l.Close()
}
