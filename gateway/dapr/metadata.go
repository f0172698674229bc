package dapr

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/component"
)

// Limits of what PUT metadata keeps.
const (
	extendedMax      = 100
	extendedBytesMax = 4 << 10
)

type registered struct {
	Name         string   `json:"name"`
	Type         string   `json:"type"`
	Version      string   `json:"version"`
	Capabilities []string `json:"capabilities"`
}

type actorRuntime struct {
	Status    string        `json:"runtimeStatus"`
	Active    []activeActor `json:"activeActors,omitempty"`
	HostReady bool          `json:"hostReady"`
	Placement string        `json:"placement,omitempty"`
}

type activeActor struct {
	Type  string `json:"type,omitempty"`
	Count int32  `json:"count,omitempty"`
}

type rule struct {
	Match string `json:"match,omitempty"`
	Path  string `json:"path,omitempty"`
}

type subscription struct {
	PubSub     string            `json:"pubsubname"`
	Topic      string            `json:"topic"`
	Metadata   map[string]string `json:"metadata,omitempty"`
	Rules      []rule            `json:"rules,omitempty"`
	DeadLetter string            `json:"deadLetterTopic"`
	Type       string            `json:"type"`
}

type metadataReply struct {
	ID             string            `json:"id"`
	RuntimeVersion string            `json:"runtimeVersion"`
	Components     []registered      `json:"components"`
	Extended       map[string]string `json:"extended"`
	ActiveActors   []activeActor     `json:"actors,omitempty"` // the older name
	Subscriptions  []subscription    `json:"subscriptions,omitempty"`
	ActorRuntime   actorRuntime      `json:"actorRuntime"`
	Features       []string          `json:"enabledFeatures,omitempty"`
	HTTPEndpoints  []named           `json:"httpEndpoints,omitempty"`
	Resiliencies   []named           `json:"resiliencies,omitempty"`
	App            AppConnection     `json:"appConnectionProperties,omitzero"`
}

type named struct {
	Name string `json:"name"`
}

// About is what metadata shows of an application besides its components.
type About struct {
	HTTPEndpoints []string // names
	Resiliencies  []string // names
	Features      []string // preview features that are on
	App           AppConnection
}

// AppConnection is how the platform talks to an application.
type AppConnection struct {
	Port           int32      `json:"port,omitempty"`
	Protocol       string     `json:"protocol,omitempty"`
	ChannelAddress string     `json:"channelAddress,omitempty"`
	MaxConcurrency int32      `json:"maxConcurrency,omitempty"`
	Health         *AppHealth `json:"health,omitempty"`
}

// AppHealth is how the platform finds out whether an application is well.
type AppHealth struct {
	Path      string `json:"healthCheckPath,omitempty"`
	Interval  string `json:"healthProbeInterval,omitempty"` // durations
	Timeout   string `json:"healthProbeTimeout,omitempty"`
	Threshold int32  `json:"healthThreshold,omitempty"`
}

func (d *Door) metadata(w http.ResponseWriter, r *http.Request, parts []string) {
	switch {
	case len(parts) == 0 && allow(w, r, http.MethodGet):
		m, err := d.describe(r)
		if err != nil {
			d.fail(w, r, "ERR_METADATA_GET", err)
			return
		}
		answerWith(w, http.StatusOK, m)
	case len(parts) == 1 && allow(w, r, http.MethodPut):
		d.putMetadata(w, r, unescape(parts[0]))
	}
}

// describe works outside of a call too: SDKs ask when they start.
func (d *Door) describe(r *http.Request) (metadataReply, error) {
	id, err := d.appID(r)
	if err != nil {
		return metadataReply{}, err
	}
	set, err := d.set(r)
	if err != nil {
		return metadataReply{}, err
	}
	d.mu.Lock()
	extended := maps.Clone(d.extended)
	d.mu.Unlock()
	extended["daprRuntimeVersion"] = RuntimeVersion
	m := metadataReply{ID: id, RuntimeVersion: RuntimeVersion, Extended: extended, Components: registeredOf(set),
		Subscriptions: d.subscriptions(r), ActorRuntime: d.actorRuntime(r)}
	m.ActiveActors = m.ActorRuntime.Active
	if d.opt.About != nil {
		about := d.opt.About(r)
		m.Features, m.App = about.Features, about.App
		m.HTTPEndpoints, m.Resiliencies = namesOf(about.HTTPEndpoints), namesOf(about.Resiliencies)
	}
	return m, nil
}

// actorRuntime is running for every application, in Dapr's words: placement is the log.
func (d *Door) actorRuntime(r *http.Request) actorRuntime {
	if d.opt.Actors == nil {
		return actorRuntime{Status: "DISABLED"}
	}
	out := actorRuntime{Status: "RUNNING", Placement: "placement: connected", HostReady: true}
	counts, _ := d.actorsOf(r).Active()
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		out.Active = append(out.Active, activeActor{name, int32(counts[name])})
	}
	return out
}

func namesOf(all []string) []named {
	var out []named
	for _, name := range all {
		out = append(out, named{name})
	}
	return out
}

func registeredOf(set *component.Set) []registered {
	all := set.All()
	out := make([]registered, 0, len(all))
	for _, c := range all {
		one := registered{Name: c.Name, Type: c.Type, Version: c.Version, Capabilities: c.Capabilities}
		if one.Capabilities == nil {
			one.Capabilities = []string{}
		}
		out = append(out, one)
	}
	return out
}

// subscriptions are told as Dapr tells what an application asked for when it started.
func (d *Door) subscriptions(r *http.Request) []subscription {
	if d.opt.Subscriptions == nil {
		return nil
	}
	var all []subscription
	for _, t := range d.opt.Subscriptions(r) {
		if t.Binding != "" {
			continue // it is none of Dapr's
		}
		s := subscription{PubSub: quipu.PubSubDefault, Topic: t.Name, DeadLetter: t.DeadLetter, Type: "PROGRAMMATIC"}
		if t.PubSub != "" { // its topics have a prefix on the log
			s.PubSub, s.Topic, s.DeadLetter = t.PubSub, strings.TrimPrefix(t.Name, t.PubSub+"/"), strings.TrimPrefix(t.DeadLetter, t.PubSub+"/")
		}
		for _, r := range t.Routes {
			s.Rules = append(s.Rules, rule(r))
		}
		if t.Path != "" {
			s.Rules = append(s.Rules, rule{Path: t.Path})
		}
		if t.Raw {
			s.Metadata = map[string]string{rawKey: "true"}
		}
		all = append(all, s)
	}
	return all
}

func (d *Door) putMetadata(w http.ResponseWriter, r *http.Request, key string) {
	value, err := io.ReadAll(http.MaxBytesReader(w, r.Body, extendedBytesMax))
	if err != nil {
		answer(w, http.StatusBadRequest, "ERR_BODY_READ", "failed to read request body: %v", err)
		return
	}
	if err := d.extend(key, string(value)); err != nil {
		d.fail(w, r, "ERR_BAD_REQUEST", err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// extend keeps an attribute for as long as the door is there.
func (d *Door) extend(key, value string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, old := d.extended[key]; !old && len(d.extended) >= extendedMax || len(key)+len(value) > extendedBytesMax {
		return &problem{status: http.StatusBadRequest, tag: "ERR_BAD_REQUEST",
			message: fmt.Sprintf("there may be %d attributes of %d bytes, name included", extendedMax, extendedBytesMax)}
	}
	if key != "" { // nothing is what Dapr does then
		d.extended[key] = value
	}
	return nil
}
