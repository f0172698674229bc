package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/gateway"
	"github.com/quipu-run/quipu/internal/mapping"
	"github.com/quipu-run/quipu/sdk"
	"github.com/quipu-run/quipu/server"
)

// NodeConfig is what the verbs dev, serve and demo say about a node.
type NodeConfig struct {
	Data         string // directory, made if it is not there
	Listen       string // host of all listeners
	Port         int    // 0 means any free one, here and below
	DaprHTTPPort int
	DaprGRPCPort int
	FreePorts    bool              // take a free port where one is taken
	Sync         string            // when the log acknowledges: always or os
	Sandbox      string            // walls around functions: auto, which "" means, or off
	Components   string            // which Dapr components the log serves: log or strict; "" means what QUIPU_COMPONENTS says, or log
	TokenFile    string            // "" means no token, which only loopback may do
	CallsMax     int               // of a namespace, at a time; 0 means the default, here and below
	InstancesMax int               // of a namespace
	RequireToken bool              // instances must send DAPR_API_TOKEN
	Fault        gateway.FaultFunc // of dev
	Version      string
	observeFlags
	// Ready is called once, when the node serves and its node.json is in place.
	Ready func(sdk.Node)
}

// runNode runs a node until ctx ends, then drains it. It is where the command line meets package server.
func runNode(ctx context.Context, n NodeConfig) error {
	token, err := readToken(n.TokenFile)
	if err != nil {
		return err
	}
	if n.Sandbox != "" && n.Sandbox != "auto" && n.Sandbox != "off" {
		return &quipu.Error{Code: quipu.CodeUsage, Text: fmt.Sprintf("--sandbox is %q, but must be auto or off", n.Sandbox)}
	}
	if n.CallsMax < 0 || n.InstancesMax < 0 {
		return &quipu.Error{Code: quipu.CodeUsage, Text: "--calls-max and --instances-max cannot be negative"}
	}
	components, err := mapping.ParsePolicy(cmp.Or(n.Components, os.Getenv("QUIPU_COMPONENTS")))
	if err != nil {
		return err
	}
	logger, err := n.logger(os.Stderr)
	if err != nil {
		return err
	}
	traces, err := n.traces()
	if err != nil {
		return err
	}
	go paceCollector(ctx.Done())
	return server.Run(ctx, server.Config{
		Data: n.Data, Listen: n.Listen, Port: n.Port, DaprHTTPPort: n.DaprHTTPPort, DaprGRPCPort: n.DaprGRPCPort, FreePorts: n.FreePorts, Sync: n.Sync,
		Token: token, InstanceToken: n.RequireToken, Unconfined: n.Sandbox == "off", CallsMax: n.CallsMax, InstancesMax: n.InstancesMax, Version: n.Version, Ready: n.Ready, Fault: n.Fault,
		Logger: logger, Trace: traces, Components: components,
	})
}

// readToken takes the token from a file, so that it is not on a command line that others can list.
func readToken(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", &quipu.Error{Code: quipu.CodeUsage, Text: fmt.Sprintf("the token file %s cannot be read", file), Err: err}
	}
	token := string(bytes.TrimSpace(text))
	if token == "" {
		return "", &quipu.Error{Code: quipu.CodeUsage, Text: fmt.Sprintf("the token file %s is empty", file)}
	}
	return token, nil
}
