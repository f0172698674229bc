package sdk

import (
	"context"
	"iter"
	"net/url"
	"strconv"
	"time"

	"github.com/quipu-run/quipu"
)

// LogsRequest says which lines that instances printed.
type LogsRequest struct {
	Functions []string // none: all of the namespace
	Tail      int      // the last lines of all together; 0 means 100
	Follow    bool     // go on with new ones
	// After, if not nil, has the Place of the last line that was seen of a function: Tail is not looked at. Of others, lines since
	// Since, which is the time of the first line that was seen, are new.
	After map[string]string
	Since time.Time
}

func (r LogsRequest) query() url.Values {
	q := url.Values{"follow": {strconv.FormatBool(r.Follow)}, "function": r.Functions}
	if r.Tail > 0 {
		q.Set("tail", strconv.Itoa(r.Tail))
	}
	if r.After != nil {
		q.Set("since", r.Since.UTC().Format(time.RFC3339Nano))
	}
	for function, place := range r.After {
		q.Add("after", function+":"+place)
	}
	return q
}

// Waits between attempts to reach a node that was reached before.
const (
	LogsWaitFirst = 100 * time.Millisecond // doubles
	LogsWaitMax   = 5 * time.Second
)

// LogsOf yields lines of several functions, in order of time. With Follow it goes on when the node is back that broke off: nothing
// that is still kept is left out, and nothing comes twice. broken, if not nil, is told why, and how long it waits before
// the next attempt, which are made until ctx ends. An error, if any, comes last. CodeNoFunction, or what the first attempt failed with.
func (c *Client) LogsOf(ctx context.Context, r LogsRequest, broken func(err error, wait time.Duration)) iter.Seq2[LogLine, error] {
	return func(yield func(LogLine, error) bool) {
		wait := LogsWaitFirst
		for reached := false; ; {
			more, err := c.logsOnce(ctx, &r, func(line LogLine) bool { return yield(line, nil) }, func() {
				reached, wait = true, LogsWaitFirst
			})
			switch {
			case !more:
				return
			case ctx.Err() != nil:
				yield(LogLine{}, ctx.Err())
				return
			case err != nil && (!r.Follow || !reached || !mayPass(err)):
				yield(LogLine{}, err)
				return
			}
			if broken != nil {
				broken(err, wait)
			}
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
			wait = min(2*wait, LogsWaitMax)
		}
	}
}

// logsOnce is one connection; it makes r what the next is to ask for. more is false when there is no next. An error is why the
// connection ended before its time.
func (c *Client) logsOnce(ctx context.Context, r *LogsRequest, yield func(LogLine) bool, reached func()) (more bool, _ error) {
	resp, err := c.send(ctx, c.get("/logs", r.query()))
	if err != nil {
		return true, err
	}
	defer resp.Body.Close()
	reached()
	if r.Follow && r.After == nil {
		r.After = map[string]string{}
		r.Since = time.Time{} // if nothing is there to see, all that comes is new
	}
	for line, err := range func(yield func(LogLine, error) bool) { decodeLines(resp.Body, yield) } {
		if err != nil {
			return true, c.brokeOff(ctx, "logs", "", err)
		}
		if !yield(line) {
			return false, nil
		}
		if r.Follow {
			if len(r.After) == 0 && r.Since.IsZero() {
				r.Since = line.Time
			}
			r.After[line.Function] = line.Place
		}
	}
	if !r.Follow {
		return false, nil
	}
	return true, c.brokeOff(ctx, "logs", "", nil)
}

// mayPass tells whether the next attempt may go well: the node is away, stops, or has too much to do.
func mayPass(err error) bool {
	switch quipu.CodeOf(err) {
	case quipu.CodeNoNode, quipu.CodeStopping, quipu.CodeOverloaded:
		return true
	}
	return false
}
