package main

import (
	"context"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// NodeConfig is what the verbs dev, serve and demo say about a node.
type NodeConfig struct {
	Data         string // directory, made if it is not there
	Listen       string // host of all listeners
	Port         int    // 0 means any free one, here and below
	DaprHTTPPort int
	DaprGRPCPort int
	TokenFile    string // "" means no token, which only loopback may do
	RequireToken bool   // instances must send DAPR_API_TOKEN
	Version      string
	// Ready is called once, when the node serves and its node.json is in place.
	Ready func(sdk.Node)
}

// runNode runs a node until ctx ends, then drains it. It is where the command line meets package server.
func runNode(context.Context, NodeConfig) error {
	return &quipu.Error{Code: quipu.CodeUsage, Text: "this build has no node", Hint: "use a build with package server"}
}

// runDemo runs the embedded example to its end; without once it then leaves the node running until ctx ends.
func runDemo(context.Context, NodeConfig, bool) error {
	return &quipu.Error{Code: quipu.CodeUsage, Text: "this build has no node", Hint: "use a build with package server"}
}
