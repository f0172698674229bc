package server

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/alarm"
	"github.com/quipu-run/quipu/call"
	contractdapr "github.com/quipu-run/quipu/contract/dapr"
	contract "github.com/quipu-run/quipu/contract/http"
	"github.com/quipu-run/quipu/contract/line"
	"github.com/quipu-run/quipu/internal/secret"
	"github.com/quipu-run/quipu/kv"
	ownership "github.com/quipu-run/quipu/lease"
	"github.com/quipu-run/quipu/meter"
	"github.com/quipu-run/quipu/pool"
	"github.com/quipu-run/quipu/timer"
	"github.com/quipu-run/quipu/topic"
	"github.com/quipu-run/quipu/workflow"
)

// app is how we talk to an instance, in the way of its function's contract.
type app interface {
	Do(r *http.Request) (*http.Response, error)
	Close()
}

func newApp(f quipu.Function, dial func(context.Context) (net.Conn, error)) app {
	token := f.Spec.Env["APP_API_TOKEN"]
	if f.Spec.Protocol == quipu.ProtocolGRPC {
		return contractdapr.NewClient(contractdapr.Options{Dial: dial, Token: token})
	}
	plain := contract.NewClient(contract.Options{Dial: dial, Conns: f.Spec.Concurrency})
	if f.Spec.Contract == quipu.ContractDapr {
		return contractdapr.HTTP{App: plain, Token: token}
	}
	return plain
}

// appOf is the client that all calls in an instance share; release of the instance closes it.
func (ns *namespace) appOf(l *pool.Lease) app { return ns.appAt(l.ID(), l.Function(), l.Instance()) }

func (ns *namespace) appAt(instance string, f quipu.Function, i quipu.Instance) app {
	if a, ok := ns.apps.Load(instance); ok {
		return a.(app)
	}
	made := newApp(f, i.Dial)
	if d, ok := ns.doors.Load(instance); ok && (f.Spec.Atomic || f.Spec.Durable) && f.Spec.Contract != quipu.ContractDapr { // whose requests and replies are held
		made = line.Client{App: made, Door: d.(*line.Door)}
	}
	if using, ok := ns.using.Load(instance); ok && f.Spec.Protocol != quipu.ProtocolGRPC && using.(*uses).appPipeline != nil {
		made = pipedApp{made, func() *uses { return using.(*uses) }}
	}
	a, _ := ns.apps.LoadOrStore(instance, made)
	return a.(app)
}

// judge tells what the reply of a function means for an event: 2xx acknowledges it, but for what a Dapr application says
// more.
func judge(f quipu.Function, status int, body []byte) quipu.Outcome {
	switch {
	case f.Spec.Contract == quipu.ContractDapr:
		return contractdapr.Judge(status, body)
	case status >= 200 && status < 300:
		return quipu.Ack
	}
	return quipu.Retry
}

// route makes the choice of a path for each event.
func route(t quipu.TopicTrigger) (func(event []byte) string, error) {
	r, err := contractdapr.NewRouter(t)
	if err != nil {
		return nil, err
	}
	return func(event []byte) string {
		path, _ := r.Path(event)
		return path
	}, nil
}

// words are how views call what they have in a record.
var words = map[string]call.Words{
	kv.Name:        {Key: kv.DescribeKey, Op: kv.DescribeOp, Effect: kv.DescribeEffect},
	topic.Name:     {Key: topic.DescribeKey, Op: topic.DescribeOp, Effect: topic.DescribeEffect, Events: topic.DescribeEvents},
	meter.Name:     {Op: meter.DescribeOp},
	timer.Name:     {Key: timer.DescribeKey, Op: timer.DescribeOp},
	alarm.Name:     {Key: alarm.DescribeKey, Op: alarm.DescribeOp},
	ownership.Name: {Key: ownership.DescribeKey, Op: ownership.DescribeOp},
	workflow.Name:  {Key: workflow.DescribeKey, Op: workflow.DescribeOp, Effect: workflow.DescribeEffect},
}

// complete gives a subscription of Dapr what a trigger of quipu.yaml has by default.
func complete(t *quipu.TopicTrigger) {
	t.Batch = max(1, t.Batch)
	if t.Retry == (quipu.RetrySpec{}) {
		t.Retry = quipu.RetrySpec{Max: quipu.RetriesDefault, Backoff: quipu.Duration(quipu.BackoffDefault)}
	}
}

// secretsOf are the secrets of the application that a function belongs to. Who is no function has those of all
// applications; of two with one name, that of the application whose name comes first.
func (ns *namespace) secretsOf(function string) (map[string]string, error) {
	if f, err := ns.View.Function(function); err == nil {
		set, err := secretsIn(ns.Folder(f))
		return set.Values(), err
	}
	all, byApp := map[string]string{}, map[string]quipu.Function{}
	for _, f := range ns.Functions() {
		byApp[f.App] = f
	}
	for _, app := range slices.Backward(slices.Sorted(maps.Keys(byApp))) {
		set, err := secretsIn(ns.Folder(byApp[app]))
		if err != nil {
			return nil, err
		}
		maps.Copy(all, set.Values())
	}
	return all, nil
}

func secretsIn(dir string) (secret.Set, error) {
	info, err := os.Stat(filepath.Join(dir, secret.File))
	if errors.Is(err, fs.ErrNotExist) {
		return secret.Set{}, nil
	}
	if err == nil && info.Size() > secret.BytesMax {
		err = &quipu.Error{Code: quipu.CodeManifest, Op: "deploy", Text: secret.File + " is too large"}
	}
	if err != nil {
		return secret.Set{}, err
	}
	text, err := os.ReadFile(filepath.Join(dir, secret.File))
	if err != nil {
		return secret.Set{}, err
	}
	return secret.Parse(text)
}
