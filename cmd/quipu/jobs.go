package main

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quipu-run/quipu"
)

func (c *cli) jobsCommand() *cobra.Command {
	jobs := &cobra.Command{Use: "jobs", Short: "Look after jobs of applications", Args: cobra.NoArgs}
	jobs.AddCommand(c.jobsList(),
		&cobra.Command{Use: "get APP NAME", Short: "Show a job, with its data", Args: cobra.ExactArgs(2), RunE: func(cmd *cobra.Command, args []string) error {
			node, err := c.client()
			if err != nil {
				return err
			}
			job, err := node.Job(cmd.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			return c.showOne(job)
		}},
		&cobra.Command{Use: "rm APP NAME", Short: "Remove a job", Args: cobra.ExactArgs(2), RunE: func(cmd *cobra.Command, args []string) error {
			node, err := c.client()
			if err == nil {
				err = c.sure("removing the job " + args[1] + " of " + args[0])
			}
			if err != nil {
				return err
			}
			return node.RemoveJob(cmd.Context(), args[0], args[1])
		}})
	return jobs
}

func (c *cli) jobsList() *cobra.Command {
	cmd := &cobra.Command{Use: "ls [APP]", Short: "List jobs, by application and name", Args: cobra.MaximumNArgs(1)}
	prefix := cmd.Flags().String("prefix", "", "only names that start so; with APP")
	limit := cmd.Flags().Int("limit", 1000, "at most so many")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		app := strings.Join(args, "")
		if app == "" && *prefix != "" {
			return usage("--prefix is of the jobs of an application: quipu jobs ls APP --prefix %s", *prefix)
		}
		node, err := c.client()
		if err != nil {
			return err
		}
		var all []quipu.Alarm
		for after := ""; ; {
			list, next, err := node.Jobs(cmd.Context(), app, *prefix, after)
			if err != nil {
				return err
			}
			if all = append(all, list...); next == "" || len(all) >= *limit {
				return c.list(tableOf(jobHead, all[:min(len(all), max(0, *limit))], jobRow))
			}
			after = next
		}
	}
	return cmd
}

const jobHead = "APP\tNAME\tSCHEDULE\tNEXT\tFIRED\tATTEMPTS\tCAUSE"

func jobRow(j quipu.Alarm) []any {
	return []any{j.App, printable(j.Name), j.Schedule, j.Next.Format(time.RFC3339), j.Fired, j.Attempts, printable(j.Cause)}
}
