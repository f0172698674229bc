package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quipu-run/quipu/cmd/quipu/internal/crashtest"
)

func (c *cli) testCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "test [DIR]", Short: "Kill an application's functions after every operation, and see whether that shows", Args: cobra.MaximumNArgs(1)}
	runs := cmd.Flags().Int("max-runs", crashtest.RunsDefault, "points to kill at; if there are more, some are chosen evenly")
	timeout := cmd.Flags().Duration("timeout", 10*time.Minute, "for all runs together")
	sandbox := cmd.Flags().String("sandbox", "auto", "walls around functions: auto, off")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *runs < 1 || *timeout <= 0 || *sandbox != "auto" && *sandbox != "off" {
			return usage("--max-runs and --timeout must be more than 0, and --sandbox auto or off")
		}
		dir := append(args, ".")[0]
		scenario, err := crashtest.Load(dir)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeoutCause(cmd.Context(), *timeout,
			fmt.Errorf("the test was not done after %s: give it more with --timeout, or fewer runs with --max-runs", *timeout))
		defer cancel()
		report, err := crashtest.Run(ctx, crashtest.Options{Dir: dir, App: appName(dir), Scenario: scenario, RunsMax: *runs,
			Unconfined: *sandbox == "off", Version: version, Progress: c.testProgress()})
		if cmd.Context().Err() != nil {
			return errors.New("the test was interrupted: nothing is known") // and that is no success
		}
		if cause := context.Cause(ctx); err != nil && cause != nil {
			err = cause
		}
		if err != nil {
			return err
		}
		return c.showReport(report)
	}
	return cmd
}

// testProgress notes how far it is, now and then.
func (c *cli) testProgress() func(run, runs int) {
	last := time.Now()
	return func(run, runs int) {
		if time.Since(last) > 2*time.Second {
			last = time.Now()
			c.note("run %d of %d", run, runs)
		}
	}
}

// showReport prints what was found; it fails if something leaks.
func (c *cli) showReport(r crashtest.Report) (err error) {
	if c.output != "table" {
		err = c.show(r)
	} else {
		_, err = fmt.Fprint(c.out, reportText(r))
	}
	if err == nil && !r.Safe() {
		err = shown("not crash-safe")
	}
	return err
}

func reportText(r crashtest.Report) string {
	var b strings.Builder
	for _, name := range r.Ignored {
		fmt.Fprintf(&b, "not compared, it differs without any crash: %s\n", printable(name))
	}
	for _, l := range r.Leaks {
		fmt.Fprintf(&b, "LEAK %s, in step %d (%s)\n", printable(l.Point.String()), l.Step, printable(r.Steps[l.Step-1]))
		if l.Failed != "" {
			fmt.Fprintf(&b, "  the run failed: %s\n", printable(l.Failed))
		}
		for _, d := range l.Differences {
			fmt.Fprintf(&b, "  %s\n    expected %s\n    found    %s\n", printable(d.What), printable(d.Expected), printable(d.Found))
		}
	}
	if r.Tried < r.Points {
		fmt.Fprintf(&b, "of %d crash points %d were tried: --max-runs\n", r.Points, r.Tried)
	}
	if r.Unreached > 0 {
		fmt.Fprintf(&b, "%d crash points were not reached: what runs at the same time took another order\n", r.Unreached)
	}
	perSecond := float64(r.Runs) / r.Seconds
	if r.Safe() {
		fmt.Fprintf(&b, "crash-safe: %d crash points, all end in the same state (%.1f s, %.1f runs/s)\n", r.Tried-r.Unreached, r.Seconds, perSecond)
	} else {
		fmt.Fprintf(&b, "not crash-safe: after %d of %d crash points the state is another (%.1f s, %.1f runs/s)\n", len(r.Leaks), r.Tried, r.Seconds, perSecond)
	}
	return b.String()
}
