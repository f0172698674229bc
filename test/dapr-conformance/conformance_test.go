// Package conformance runs the conformance packages of Dapr's components-contrib on a node: each adapter is a component as
// upstream knows it, and does all it does by calling Dapr's API of a real node, over gRPC or HTTP, as an application that
// declares the component in a resource file. The operations are those that upstream's tests.yml claims for the components
// that can do the most. It is a module of its own, since upstream is no dependency of ours.
//
// The race detector finds one race, which is in the suite of pub/sub: a handler and the part that verifies delete from one map.
package conformance

import (
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	suite_bindings "github.com/dapr/components-contrib/tests/conformance/bindings"
	suite_configuration "github.com/dapr/components-contrib/tests/conformance/configuration"
	suite_conversation "github.com/dapr/components-contrib/tests/conformance/conversation"
	suite_crypto "github.com/dapr/components-contrib/tests/conformance/crypto"
	suite_lock "github.com/dapr/components-contrib/tests/conformance/lock"
	suite_pubsub "github.com/dapr/components-contrib/tests/conformance/pubsub"
	suite_secretstores "github.com/dapr/components-contrib/tests/conformance/secretstores"
	suite_state "github.com/dapr/components-contrib/tests/conformance/state"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
	"github.com/quipu-run/quipu/test/daprnode"
)

// properties are of types whose servers nobody needs: the log serves them.
type properties = map[string]string

var redis = properties{"redisHost": "localhost:6379", "redisPassword": ""}

// TestMain lets all suites wait at the same time, on a machine of any size.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err) // testing has this flag
	}
	os.Exit(m.Run())
}

// bench is a node that all suites share.
type bench struct{ node *sdk.Client }

func (b bench) component(t *testing.T, name, kind string) component {
	return component{t: t, node: b.node, name: name, kind: kind, dir: t.TempDir()}
}

// TestConformance starts one node for all suites, which wait more than they work: they run side by side, but the one of
// secret stores, which sets variables.
func TestConformance(t *testing.T) {
	node, err := sdk.New(sdk.Options{URL: daprnode.Serve(t, filepath.Join("..", "..")).URL()})
	if err != nil {
		t.Fatal(err)
	}
	b := bench{node}
	t.Run("secretstores", b.secretstores)
	t.Run("bindings", b.bindings)
	for name, suite := range map[string]func(*testing.T){
		"state over gRPC": b.stateOverGRPC, "state over HTTP": b.stateOverHTTP, "pubsub over gRPC": b.pubsubOverGRPC, "pubsub over HTTP": b.pubsubOverHTTP,
		"configuration over gRPC": b.configurationOverGRPC, "configuration over HTTP": b.configurationOverHTTP,
		"crypto": b.crypto, "conversation": b.conversation, "lock over gRPC": b.lockOverGRPC, "lock over HTTP": b.lockOverHTTP,
		"workflows over gRPC": b.workflowsOverGRPC, "workflows over HTTP": b.workflowsOverHTTP,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			suite(t)
		})
	}
}

func stateConfig(t *testing.T) suite_state.TestConfig {
	config, err := suite_state.NewTestConfig("quipu", everything(t, "state"), map[string]any{"badEtag": quipu.Seq(1).String()})
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func (b bench) stateOverGRPC(t *testing.T) {
	suite_state.ConformanceTests(t, redis, newState(b.component(t, "conformance-state", "state.redis")), stateConfig(t))
}

func (b bench) stateOverHTTP(t *testing.T) {
	s := newWebState(b.component(t, "conformance-web-state", "state.postgresql"))
	suite_state.ConformanceTests(t, properties{"connectionString": "host=localhost user=postgres"}, s, stateConfig(t))
}

func pubsubConfig(t *testing.T) suite_pubsub.TestConfig {
	config, err := suite_pubsub.NewTestConfig("quipu", everything(t, "pubsub"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func (b bench) pubsubOverGRPC(t *testing.T) {
	p := &streams{publisher{component: b.component(t, "conformance-streams", "pubsub.redis")}}
	suite_pubsub.ConformanceTests(t, redis, p, pubsubConfig(t))
}

func (b bench) pubsubOverHTTP(t *testing.T) {
	p := &posts{publisher{component: b.component(t, "conformance-posts", "pubsub.kafka")}}
	suite_pubsub.ConformanceTests(t, properties{"brokers": "localhost:9092", "authType": "none"}, p, pubsubConfig(t))
}

func (b bench) configurationOverGRPC(t *testing.T) {
	const name = "conformance-settings"
	suite_configuration.ConformanceTests(t, redis, &settings{b.component(t, name, "configuration.redis")}, b.writer(name), configurationConfig(), "quipu")
}

func (b bench) configurationOverHTTP(t *testing.T) {
	const name = "conformance-web-settings"
	suite_configuration.ConformanceTests(t, redis, newWebSettings(b.component(t, name, "configuration.redis")), b.writer(name), configurationConfig(), "quipu")
}

func (b bench) writer(name string) writer { return writer{b.node.State("configuration:"+name, "")} }

// configurationConfig says that versions are the store's, not the writer's, which is a setting of the suite.
func configurationConfig() suite_configuration.TestConfig {
	config := suite_configuration.NewTestConfig("quipu", nil, nil)
	config.IgnoreVersion = true
	return config
}

func (b bench) lockOverGRPC(t *testing.T) {
	suite_lock.ConformanceTests(t, redis, &locks{b.component(t, "conformance-lock", "lock.redis")}, suite_lock.TestConfig{})
}

func (b bench) lockOverHTTP(t *testing.T) {
	suite_lock.ConformanceTests(t, redis, &webLocks{b.component(t, "conformance-web-lock", "lock.redis")}, suite_lock.TestConfig{})
}

func (b bench) crypto(t *testing.T) {
	fixtures := filepath.Join(upstream(t), "tests", "conformance", "fixtures", "crypto")
	for name, properties := range map[string]properties{
		"localstorage": {"path": filepath.Join(fixtures, "localstorage")},
		"jwks":         {"jwks": filepath.Join(fixtures, "jwks", "jwks.json")},
	} {
		c := claimOf(t, "crypto", name)
		config, err := suite_crypto.NewTestConfig(name, c.Operations, c.Config)
		if err != nil {
			t.Fatal(err)
		}
		for protocol, overHTTP := range map[string]bool{"gRPC": false, "HTTP": true} {
			t.Run(name+" over "+protocol, func(t *testing.T) {
				k := &keys{component: b.component(t, "conformance-"+name+"-"+protocol, "crypto.dapr."+name), overHTTP: overHTTP}
				suite_crypto.ConformanceTests(t, properties, k, config)
			})
		}
	}
}

func (b bench) conversation(t *testing.T) {
	for protocol, overHTTP := range map[string]bool{"gRPC": false, "HTTP": true} {
		t.Run("echo over "+protocol, func(t *testing.T) {
			k := &talk{component: b.component(t, "conformance-echo-"+protocol, "conversation.echo"), overHTTP: overHTTP}
			suite_conversation.ConformanceTests(t, nil, k, "echo")
		})
	}
}

func (b bench) secretstores(t *testing.T) {
	t.Run("local.env over gRPC", func(t *testing.T) {
		v := &vault{b.component(t, "conformance-env", "secretstores.local.env")}
		suite_secretstores.ConformanceTests(t, nil, v, suite_secretstores.NewTestConfig("local.env", nil))
	})
	t.Run("local.file over HTTP", func(t *testing.T) {
		v := &webVault{b.component(t, "conformance-file", "secretstores.local.file")}
		if err := os.WriteFile(filepath.Join(v.dir, "secrets.json"), []byte(`{"conftestsecret":"abcd","secondsecret":"efgh"}`), 0o600); err != nil {
			t.Fatal(err)
		}
		suite_secretstores.ConformanceTests(t, properties{"secretsFile": "secrets.json", "nestedSeparator": ":"}, v, suite_secretstores.NewTestConfig("local.file", nil))
	})
}

// bindings are run one after the other: the suite has a variable that all of its configurations set.
func (b bench) bindings(t *testing.T) {
	t.Run("redis over gRPC", func(t *testing.T) {
		out := &binding{b.component(t, "conformance-redis", "bindings.redis")}
		suite_bindings.ConformanceTests(t, redis, nil, out, bindingConfig(t, properties{"key": "conformance"}, "create", "operations", "get", "delete"))
	})
	t.Run("localstorage over HTTP", func(t *testing.T) {
		out := &webBinding{binding{b.component(t, "conformance-files", "bindings.localstorage")}}
		suite_bindings.ConformanceTests(t, properties{"rootPath": out.dir}, nil, out,
			bindingConfig(t, properties{"fileName": "conformance.json"}, "create", "operations", "get"))
	})
	t.Run("http over HTTP", func(t *testing.T) {
		asked := make(chan string, 1)
		far := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r.Method + " " + r.URL.Path }))
		t.Cleanup(far.Close)
		out := &webBinding{binding{b.component(t, "conformance-http", "bindings.http")}}
		suite_bindings.ConformanceTests(t, properties{"url": far.URL + "/call", "method": "POST"}, nil, out, bindingConfig(t, nil, "create", "operations"))
		if got := <-asked; got != "POST /call" {
			t.Errorf("the binding asked for %s", got)
		}
	})
	t.Run("cron to an application over HTTP", func(t *testing.T) {
		in := &input{component: b.component(t, "conformance-cron", "bindings.cron")}
		suite_bindings.ConformanceTests(t, properties{"schedule": "@every 1s"}, in, nil, bindingConfig(t, nil, "read"))
	})
	queues := map[string]properties{
		"rabbitmq": {"queueName": "conformance", "host": "amqp://localhost:5672"},
		"mqtt3":    {"topic": "conformance", "url": "tcp://localhost:1883"},
		"kafka":    {"topics": "conformance", "publishTopic": "conformance", "brokers": "localhost:9092", "consumerGroup": "g", "authRequired": "false"},
	}
	for kind, properties := range queues {
		t.Run(kind+" to an application over gRPC", func(t *testing.T) {
			c := b.component(t, "conformance-"+kind, "bindings."+kind)
			suite_bindings.ConformanceTests(t, properties, &input{component: c, grpc: true}, &binding{c}, bindingConfig(t, nil, "create", "operations", "read"))
		})
	}
}

func bindingConfig(t *testing.T, metadata properties, operations ...string) suite_bindings.TestConfig {
	config, err := suite_bindings.NewTestConfig("quipu", operations, map[string]any{"output": metadata})
	if err != nil {
		t.Fatal(err)
	}
	return config
}
