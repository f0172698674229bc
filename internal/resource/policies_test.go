package resource

import (
	"strings"
	"testing"
	"time"

	yaml "go.yaml.in/yaml/v3"
)

// The example of Dapr's documentation, with an unknown field.
const documented = `
spec:
  policies:
    timeouts: {general: 5s, important: 60s, largeResponse: 10s, millis: 1500}
    retries:
      pubsubRetry: {policy: constant, duration: 5s, maxRetries: 10}
      retryForever: {policy: exponential, maxInterval: 15s, maxRetries: -1}
      important: {policy: constant, duration: 5s, maxRetries: 30, matching: {httpStatusCodes: "429,500-599", gRPCStatusCodes: "1-4,8-11,13,14"}}
    circuitBreakers:
      simpleCB: {maxRequests: 1, timeout: 30s, trip: consecutiveFailures >= 5}
    fromTheFuture: {is: unknown}
  targets:
    apps: {appB: {timeout: general, retry: important, circuitBreaker: simpleCB}}
    actors: {myActorType: {timeout: general, circuitBreaker: simpleCB, circuitBreakerScope: both, circuitBreakerCacheSize: 5000}}
    components: {statestore1: {outbound: {timeout: general, retry: retryForever}}}
`

func readResiliency(t *testing.T, text string) Resiliency {
	t.Helper()
	var r Resiliency
	file := struct {
		Spec *ResiliencySpec `yaml:"spec"`
	}{&r.Spec}
	if err := yaml.Unmarshal([]byte(text), &file); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestDocumentedPoliciesAreGood(t *testing.T) {
	r := readResiliency(t, documented)
	if err := r.Validate(); err != nil {
		t.Fatal(err)
	}
	if r.Spec.Targets.Components["statestore1"].Outbound.Retry != "retryForever" {
		t.Errorf("%+v", r.Spec.Targets)
	}
	if d, err := Duration(r.Spec.Policies.Timeouts["millis"]); err != nil || d != 1500*time.Millisecond {
		t.Errorf("a number is milliseconds: %s, %v", d, err)
	}
}

func TestEachBadPolicyIsNamedByItsField(t *testing.T) {
	for _, c := range []struct{ text, field string }{
		{"{spec: {policies: {timeouts: {a: soon}}}}", "spec.policies.timeouts.a: "},
		{"{spec: {policies: {timeouts: {a: -1s}}}}", "spec.policies.timeouts.a: "},
		{"{spec: {policies: {retries: {a: {policy: linear}}}}}", "spec.policies.retries.a.policy: "},
		{"{spec: {policies: {retries: {a: {duration: x}}}}}", "spec.policies.retries.a.duration: "},
		{"{spec: {policies: {retries: {a: {maxInterval: x}}}}}", "spec.policies.retries.a.maxInterval: "},
		{"{spec: {policies: {retries: {a: {maxRetries: -2}}}}}", "spec.policies.retries.a.maxRetries: "},
		{"{spec: {policies: {retries: {a: {duration: 0s}}}}}", "spec.policies.retries.a.duration: "},
		{"{spec: {policies: {retries: {a: {matching: {httpStatusCodes: '99'}}}}}}", "spec.policies.retries.a.matching.httpStatusCodes: "},
		{"{spec: {policies: {retries: {a: {matching: {httpStatusCodes: '599-500'}}}}}}", "spec.policies.retries.a.matching.httpStatusCodes: "},
		{"{spec: {policies: {retries: {a: {matching: {gRPCStatusCodes: '1-2-3'}}}}}}", "spec.policies.retries.a.matching.gRPCStatusCodes: "},
		{"{spec: {policies: {retries: {a: {matching: {gRPCStatusCodes: '17'}}}}}}", "spec.policies.retries.a.matching.gRPCStatusCodes: "},
		{"{spec: {policies: {circuitBreakers: {a: {maxRequests: -1}}}}}", "spec.policies.circuitBreakers.a.maxRequests: "},
		{"{spec: {policies: {circuitBreakers: {a: {interval: x}}}}}", "spec.policies.circuitBreakers.a.interval: "},
		{"{spec: {policies: {circuitBreakers: {a: {timeout: x}}}}}", "spec.policies.circuitBreakers.a.timeout: "},
		{"{spec: {targets: {apps: {a: {circuitBreakerCacheSize: -1}}}}}", "spec.targets.apps.a.circuitBreakerCacheSize: "},
		{"{spec: {targets: {actors: {a: {circuitBreaker: b}}}}}", "spec.targets.actors.a.circuitBreakerScope: "},
		{"{spec: {targets: {actors: {a: {circuitBreakerScope: all}}}}}", "spec.targets.actors.a.circuitBreakerScope: "},
	} {
		err := readResiliency(t, c.text).Validate()
		if err == nil || !strings.HasPrefix(err.Error(), c.field) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", c.text, err)
		}
	}
	two := readResiliency(t, "{spec: {policies: {timeouts: {a: x, b: y}}}}").Validate()
	if two == nil || strings.Count(two.Error(), "\n") != 1 {
		t.Errorf("two mistakes are told at once: %v", two)
	}
}

func TestCodesAreThoseOfTheListAndItsRanges(t *testing.T) {
	ranges, err := Codes("200, 300-309,,500", HTTPCodes)
	if err != nil {
		t.Fatal(err)
	}
	has := func(code int) bool {
		for _, r := range ranges {
			if r.Has(code) {
				return true
			}
		}
		return false
	}
	for code, want := range map[int]bool{199: false, 200: true, 201: false, 300: true, 305: true, 309: true, 310: false, 500: true} {
		if has(code) != want {
			t.Errorf("%d: %t", code, !want)
		}
	}
	if _, err := Codes(strings.Repeat("500,", codeRangesMax+1), HTTPCodes); err == nil {
		t.Error("a list without end was read")
	}
}

func readConfiguration(t *testing.T, text string) Configuration {
	t.Helper()
	var c Configuration
	file := struct {
		Spec *ConfigurationSpec `yaml:"spec"`
	}{&c.Spec}
	if err := yaml.Unmarshal([]byte(text), &file); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestADocumentedConfigurationIsGood(t *testing.T) {
	c := readConfiguration(t, `
spec:
  tracing: {samplingRate: "1", stdout: true, otel: {endpointAddress: "collector:4317", isSecure: false, protocol: grpc, headers: [a=b], timeout: 5s}}
  metrics: {enabled: false, rules: [{name: x}]}
  httpPipeline: {handlers: [{name: oauth2, type: middleware.http.oauth2}]}
  secrets: {scopes: [{storeName: localstore, defaultAccess: deny, allowedSecrets: [secret1]}]}
  components: {deny: [bindings.smtp, state.in-memory/v1]}
  api: {allowed: [{name: state, version: v1.0, protocol: http}, {name: invoke, version: v1, protocol: grpc}]}
  accessControl:
    defaultAction: deny
    trustDomain: public
    policies:
    - {appId: app1, defaultAction: deny, trustDomain: public, namespace: default, operations: [{name: /op1, httpVerb: [POST, GET], action: allow}]}
    - {appId: app1, namespace: other}
  mtls: {enabled: true}
`)
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if *c.Spec.Metrics.Enabled || c.Spec.Tracing.Otel.Endpoint != "collector:4317" || c.Spec.AccessControl.Policies[0].Operations[0].Verbs[1] != "GET" {
		t.Errorf("%+v", c.Spec)
	}
}

func TestEachBadSettingIsNamedByItsField(t *testing.T) {
	for _, c := range []struct{ text, field string }{
		{"{spec: {httpPipeline: {handlers: [{name: a}]}}}", "spec.httpPipeline.handlers[0]: "},
		{"{spec: {appHttpPipeline: {handlers: [{type: a}]}}}", "spec.appHttpPipeline.handlers[0]: "},
		{"{spec: {secrets: {scopes: [{defaultAccess: deny}]}}}", "spec.secrets.scopes[0].storeName: "},
		{"{spec: {secrets: {scopes: [{storeName: a}, {storeName: a}]}}}", "spec.secrets.scopes[1].storeName: "},
		{"{spec: {secrets: {scopes: [{storeName: a, defaultAccess: denied}]}}}", "spec.secrets.scopes[0].defaultAccess: "},
		{"{spec: {accessControl: {defaultAction: block}}}", "spec.accessControl.defaultAction: "},
		{"{spec: {accessControl: {policies: [{namespace: a}]}}}", "spec.accessControl.policies[0].appId: "},
		{"{spec: {accessControl: {policies: [{appId: a}, {appId: a}]}}}", "spec.accessControl.policies[1].appId: "},
		{"{spec: {accessControl: {policies: [{appId: a, defaultAction: x}]}}}", "spec.accessControl.policies[0].defaultAction: "},
		{"{spec: {accessControl: {policies: [{appId: a, operations: [{action: deny}]}]}}}", "spec.accessControl.policies[0].operations[0].name: "},
		{"{spec: {accessControl: {policies: [{appId: a, operations: [{name: /b}]}]}}}", "spec.accessControl.policies[0].operations[0].action: "},
		{"{spec: {accessControl: {policies: [{appId: a, operations: [{name: /b, action: deny, httpVerb: [FETCH]}]}]}}}", "spec.accessControl.policies[0].operations[0].httpVerb: "},
		{"{spec: {api: {allowed: [{name: state, protocol: http}]}}}", "spec.api.allowed[0]: "},
		{"{spec: {api: {denied: [{name: state, version: v1, protocol: tcp}]}}}", "spec.api.denied[0]: "},
		{"{spec: {components: {deny: [a/b/c]}}}", "spec.components.deny[0]: "},
		{"{spec: {tracing: {samplingRate: NaN}}}", "spec.tracing.samplingRate: "},
		{"{spec: {tracing: {samplingRate: '2'}}}", "spec.tracing.samplingRate: "},
		{"{spec: {tracing: {otel: {protocol: tcp}}}}", "spec.tracing.otel.protocol: "},
		{"{spec: {tracing: {otel: {timeout: x}}}}", "spec.tracing.otel.timeout: "},
	} {
		err := readConfiguration(t, c.text).Validate()
		if err == nil || !strings.HasPrefix(err.Error(), c.field) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", c.text, err)
		}
	}
}
