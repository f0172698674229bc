package access

import (
	"strings"

	"github.com/quipu-run/quipu/internal/resource"
)

// API is which parts of the Dapr API an app may use. A part is a name, like state, and a version. What is not allowed
// looks as if it did not exist: 404 over HTTP, Unimplemented over gRPC.
type API struct{ http, grpc rules }

// rules are those of one protocol.
type rules struct {
	restricted      bool // only what is allowed
	allowed, denied []part
}

type part struct{ name, version string }

// NewAPI reads the rules of an app; nil if there are none.
func NewAPI(a resource.API) *API {
	if len(a.Allowed) == 0 && len(a.Denied) == 0 {
		return nil
	}
	api := &API{}
	for _, r := range a.Allowed {
		to := api.of(r.Protocol)
		to.restricted = true // also by a rule that allows nothing that there is
		to.allowed = append(to.allowed, part{r.Name, version(r.Version)})
	}
	for _, r := range a.Denied {
		to := api.of(r.Protocol)
		to.denied = append(to.denied, part{r.Name, version(r.Version)})
	}
	return api
}

func (a *API) of(protocol string) *rules {
	if strings.EqualFold(protocol, "grpc") {
		return &a.grpc
	}
	return &a.http
}

// version is the one way of two to write a version: v1alpha1, not v1.0-alpha1.
func version(v string) string {
	if v == "v1.0" {
		return "v1"
	}
	return strings.Replace(v, "v1.0-", "v1", 1)
}

// HTTP tells whether a request may be served: by the version and path of its route, like v1.0 and state/mystore/bulk.
// A request that is an invocation by its header, whatever its path, is of v1.0 and invoke. Health is always told.
func (a *API) HTTP(v, path string) bool {
	if a == nil {
		return true
	}
	path = strings.TrimPrefix(path, "/")
	if path == "healthz" || strings.HasPrefix(path, "healthz/") {
		return true
	}
	return a.http.allow(version(v), path)
}

const runtimePrefix = "/dapr.proto.runtime.v1.Dapr/"

// GRPC tells whether a method may be served, by its full name. Those of other services, which are invoked through Dapr,
// may.
func (a *API) GRPC(method string) bool {
	if a == nil {
		return true
	}
	name, ours := strings.CutPrefix(method, runtimePrefix)
	if !ours {
		return true
	}
	p := methods[name]
	return a.grpc.allow(p.version, p.name)
}

// allow takes denied before allowed; path begins with the name of its part.
func (r *rules) allow(version, path string) bool {
	if matches(r.denied, version, path) {
		return false
	}
	return !r.restricted || matches(r.allowed, version, path)
}

func matches(parts []part, version, path string) bool {
	for _, p := range parts {
		if p.version != version {
			continue
		}
		if rest, ok := strings.CutPrefix(path, p.name); ok && (rest == "" || rest[0] == '/') {
			return true
		}
	}
	return false
}

// methods are the parts of the API over gRPC. A method that is not listed is of no part: allowed until there is a list
// of what is allowed.
var methods = func() map[string]part {
	all := map[string]part{}
	for name, of := range map[part]string{
		{"invoke", "v1"}:              "InvokeService",
		{"state", "v1"}:               "GetState GetBulkState SaveState DeleteState DeleteBulkState ExecuteStateTransaction",
		{"state", "v1alpha1"}:         "QueryStateAlpha1",
		{"publish", "v1"}:             "PublishEvent BulkPublishEvent",
		{"publish", "v1alpha1"}:       "BulkPublishEventAlpha1",
		{"subscribe", "v1alpha1"}:     "SubscribeTopicEventsAlpha1",
		{"bindings", "v1"}:            "InvokeBinding",
		{"secrets", "v1"}:             "GetSecret GetBulkSecret",
		{"configuration", "v1"}:       "GetConfiguration SubscribeConfiguration UnsubscribeConfiguration",
		{"configuration", "v1alpha1"}: "GetConfigurationAlpha1 SubscribeConfigurationAlpha1 UnsubscribeConfigurationAlpha1",
		{"lock", "v1alpha1"}:          "TryLockAlpha1",
		{"unlock", "v1alpha1"}:        "UnlockAlpha1",
		{"crypto", "v1alpha1"}:        "EncryptAlpha1 DecryptAlpha1",
		{"subtlecrypto", "v1alpha1"}: "SubtleGetKeyAlpha1 SubtleEncryptAlpha1 SubtleDecryptAlpha1 SubtleSignAlpha1 SubtleVerifyAlpha1 " +
			"SubtleWrapKeyAlpha1 SubtleUnwrapKeyAlpha1",
		{"conversation", "v1alpha1"}: "ConverseAlpha1",
		{"conversation", "v1alpha2"}: "ConverseAlpha2",
		{"actors", "v1"}: "RegisterActorTimer UnregisterActorTimer RegisterActorReminder UnregisterActorReminder GetActorReminder " +
			"UnregisterActorRemindersByType ListActorReminders GetActorState ExecuteActorStateTransaction InvokeActor",
		{"actors", "v1alpha1"}: "SubscribeActorEventsAlpha1",
		{"workflows", "v1alpha1"}: "StartWorkflowAlpha1 GetWorkflowAlpha1 PurgeWorkflowAlpha1 TerminateWorkflowAlpha1 PauseWorkflowAlpha1 " +
			"ResumeWorkflowAlpha1 RaiseEventWorkflowAlpha1",
		{"workflows", "v1beta1"}: "StartWorkflowBeta1 GetWorkflowBeta1 PurgeWorkflowBeta1 TerminateWorkflowBeta1 PauseWorkflowBeta1 " +
			"ResumeWorkflowBeta1 RaiseEventWorkflowBeta1",
		{"jobs", "v1"}:       "ScheduleJob GetJob DeleteJob DeleteJobsByPrefix ListJobs",
		{"jobs", "v1alpha1"}: "ScheduleJobAlpha1 GetJobAlpha1 DeleteJobAlpha1 DeleteJobsByPrefixAlpha1 ListJobsAlpha1",
		{"metadata", "v1"}:   "GetMetadata SetMetadata",
		{"shutdown", "v1"}:   "Shutdown",
	} {
		for method := range strings.FieldsSeq(of) {
			all[method] = name
		}
	}
	return all
}()
