package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/quipu-run/quipu/cmd/quipu/internal/demo"
)

// demoCommand shows the whole product in a minute. The node runs in a process of its own: it is killed.
func (c *cli) demoCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "demo [--once]", Args: cobra.NoArgs,
		Short: "The whole product in a minute: count real flights, kill everything, count right"}
	once := cmd.Flags().Bool("once", false, "end after the comparison; exit 0 only if it was exact")
	flights := cmd.Flags().String("flights", "", "file of flights, as CSV compressed with gzip; default: the 20,000 of 2001 that come with the binary")
	app := cmd.Flags().String("app", "", "folder of an application with the same functions; default: the one in Go that comes with the binary")
	n := nodeFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		freePorts(cmd, n)
		program, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
		return demo.Run(cmd.Context(), demo.Options{
			Program: program, Data: n.Data, Flights: *flights, App: *app, Once: *once, Out: c.out, Progress: c.err, Terminal: isTerminal(c.err),
			Ports: demo.Ports{Host: n.Listen, HTTP: n.Port, DaprHTTP: n.DaprHTTPPort, DaprGRPC: n.DaprGRPCPort},
		})
	}
	return cmd
}
