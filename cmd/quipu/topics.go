package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

func (c *cli) topicCommands() []*cobra.Command {
	topics := &cobra.Command{Use: "topics", Short: "Care for topics and their subscriptions", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.listKind(cmd.Context(), "topics") }}
	topics.AddCommand(c.topicsRedrive(), c.topicsSeek(), c.topicsCancel(), c.topicsUnsubscribe())
	return []*cobra.Command{c.pubCommand(), c.subCommand(), topics}
}

func (c *cli) subCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "sub TOPIC", Short: "Print events as they come, a line of JSON for each; acknowledges nothing",
		Args: cobra.ExactArgs(1), ValidArgsFunction: c.completeTopics}
	r := &sdk.EventsRequest{}
	addFrom(cmd, &r.From, "where to begin; default: end, with --no-follow earliest")
	cmd.Flags().IntVar(&r.Limit, "limit", 0, "end after so many; 0 means never")
	stop := cmd.Flags().Bool("no-follow", false, "end with the newest event")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if r.Limit < 0 {
			return usage("--limit is %d; it must be 0 or more", r.Limit)
		}
		r.Follow = !*stop
		return c.sub(cmd.Context(), args[0], *r)
	}
	return cmd
}

func addFrom(cmd *cobra.Command, from *string, about string) {
	cmd.Flags().StringVar(from, "from", "", about+" (end, earliest, an offset, a seq, a time in RFC 3339, or -1h for an hour ago)")
}

func (c *cli) sub(ctx context.Context, topic string, r sdk.EventsRequest) error {
	node, err := c.client()
	if err != nil {
		return err
	}
	if r.Follow && isTerminal(c.err) {
		c.note("waiting for events of %s; ^C ends", printable(topic))
	}
	out := json.NewEncoder(c.out)
	out.SetEscapeHTML(false)
	for e, err := range node.Events(ctx, topic, r) {
		if err == nil {
			err = out.Encode(e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *cli) topicsRedrive() *cobra.Command {
	return &cobra.Command{Use: "redrive TOPIC", Short: "Deliver dead letters again, each to the subscription that gave it up", Args: cobra.ExactArgs(1),
		ValidArgsFunction: c.completeTopics, RunE: func(cmd *cobra.Command, args []string) error {
			node, err := c.client()
			if err != nil {
				return err
			}
			n, err := node.Redrive(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if c.output != "table" {
				return c.show(sdk.Redriven{Redriven: n})
			}
			_, err = fmt.Fprintf(c.out, "%s delivered again\n", count(uint64(n), "dead letter"))
			return err
		}}
}

func count(n uint64, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

func (c *cli) topicsSeek() *cobra.Command {
	cmd := &cobra.Command{Use: "seek TOPIC SUBSCRIPTION --from PLACE", Short: "Move a subscription back or ahead", Args: cobra.ExactArgs(2), ValidArgsFunction: c.completeSubscriptions}
	from := ""
	addFrom(cmd, &from, "what is delivered next")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if from == "" {
			return &quipu.Error{Code: quipu.CodeUsage, Text: "seek needs a place", Hint: fmt.Sprintf("quipu topics seek %s %s --from earliest", args[0], args[1])}
		}
		node, err := c.client()
		if err != nil {
			return err
		}
		return node.Seek(cmd.Context(), args[0], args[1], from)
	}
	return cmd
}

func (c *cli) topicsCancel() *cobra.Command {
	return &cobra.Command{Use: "cancel TOPIC ID", Short: "Take back a delayed message that is not due yet", Args: cobra.ExactArgs(2),
		ValidArgsFunction: c.completeTopics, RunE: func(cmd *cobra.Command, args []string) error {
			node, err := c.client()
			if err != nil {
				return err
			}
			return node.CancelDelayed(cmd.Context(), args[0], args[1])
		}}
}

func (c *cli) topicsUnsubscribe() *cobra.Command {
	return &cobra.Command{Use: "unsubscribe TOPIC SUBSCRIPTION", Short: "Remove a durable subscription", Args: cobra.ExactArgs(2),
		ValidArgsFunction: c.completeSubscriptions, RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.sure(fmt.Sprintf("remove the subscription %s of topic %s", args[1], args[0])); err != nil {
				return err
			}
			node, err := c.client()
			if err != nil {
				return err
			}
			return node.Unsubscribe(cmd.Context(), args[0], args[1])
		}}
}

// completeTopics suggests topics for the first argument.
func (c *cli) completeTopics(cmd *cobra.Command, args []string, _ string) (names []string, _ cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	node, err := c.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	topics, err := node.Topics(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	for _, t := range topics {
		names = append(names, t.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeSubscriptions suggests topics, and then the subscriptions of the one that was chosen.
func (c *cli) completeSubscriptions(cmd *cobra.Command, args []string, word string) (names []string, _ cobra.ShellCompDirective) {
	if len(args) != 1 {
		return c.completeTopics(cmd, args, word)
	}
	node, err := c.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	topic, err := node.Topic(cmd.Context(), args[0])
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	for _, s := range topic.Subscriptions {
		names = append(names, s.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func topicRow(t quipu.TopicInfo) []any {
	var lag, retrying uint64
	for _, s := range t.Subscriptions {
		lag, retrying = max(lag, s.Lag), retrying+uint64(s.Retrying)
	}
	return []any{t.Name, kept(t), t.Bytes, len(t.Subscriptions), lag, retrying, t.DeadLetters, days(t.Retention)}
}

// kept counts the events that a topic still has; offsets have no gaps.
func kept(t quipu.TopicInfo) uint64 {
	if t.Last < t.First || t.First == 0 {
		return 0
	}
	return t.Last - t.First + 1
}

func days(d quipu.Duration) string {
	const day = 24 * time.Hour
	if std := d.Std(); std%day != 0 || std == 0 {
		return std.String()
	}
	return fmt.Sprintf("%dd", d.Std()/day)
}

// topicView is a topic with how many dead letters wait in which topic of its subscriptions.
type topicView struct {
	quipu.TopicInfo
	dead map[string]uint64
}

func getTopicView(ctx context.Context, node *sdk.Client, name string) (any, error) {
	info, err := node.Topic(ctx, name)
	if err != nil {
		return nil, err
	}
	all, err := node.Topics(ctx)
	v := topicView{TopicInfo: info, dead: map[string]uint64{}}
	for _, t := range all {
		v.dead[t.Name] = t.DeadLetters
	}
	return v, err
}

// print shows the topic, and then its subscriptions as a table.
func (v topicView) print(c *cli) error {
	app := v.App
	if app == "" {
		app = "none: made on first use"
	}
	limit := ""
	if v.MaxBytes > 0 {
		text, err := v.MaxBytes.MarshalText()
		if err != nil {
			return err
		}
		limit = " or " + string(text)
	}
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "topic\t%s\napp\t%s\nretention\t%s%s\n", printable(v.Name), printable(app), days(v.Retention), limit)
	fmt.Fprintf(w, "events\t%d kept, %d ever, %d bytes\ndelayed\t%d\ndead letters\t%d\n", kept(v.TopicInfo), v.Last, v.Bytes, v.Delayed, v.DeadLetters)
	if err := w.Flush(); err != nil || len(v.Subscriptions) == 0 {
		return err
	}
	fmt.Fprintln(c.out)
	err := c.list(tableOf("SUBSCRIPTION\tDONE\tLAG\tOLDEST\tRETRYING\tIN FLIGHT\tCONSUMERS\tDEAD LETTERS\tLAST ERROR", v.Subscriptions, v.row))
	for _, s := range v.Subscriptions {
		if n := v.dead[s.DeadLetter]; n > 0 {
			c.note("%s: quipu topics redrive %s", count(n, "dead letter"), printable(s.DeadLetter))
		}
	}
	return err
}

func (v topicView) row(s quipu.SubscriptionInfo) []any {
	oldest, reason := "-", "-"
	if !s.Oldest.IsZero() {
		oldest = s.Oldest.Format(time.RFC3339)
	}
	if s.LastError != "" {
		reason = strings.ToValidUTF8(s.LastError, "?")
	}
	return []any{s.Name, s.Done, s.Lag, oldest, s.Retrying, s.InFlight, s.Consumers, fmt.Sprintf("%d in %s", v.dead[s.DeadLetter], s.DeadLetter), reason}
}
