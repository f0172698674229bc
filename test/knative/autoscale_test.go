// Package knative compares decisions with Knative's own code, on the same loads.
package knative

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/quipu-run/quipu/internal/autoscale"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric/noop"
	"go.uber.org/zap"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	"knative.dev/serving/pkg/autoscaler/metrics"
	"knative.dev/serving/pkg/autoscaler/scaling"
)

var revision = types.NamespacedName{Namespace: "default", Name: "f"}

// theirs is Knative's autoscaler with its own collection of what is observed. Nothing is scraped: the test says what there is.
type theirs struct {
	collector *metrics.MetricCollector
	scaler    scaling.UniScaler
	ready     int
}

// ReadyCount and NotReadyCount are resources.EndpointsCounter.
func (k *theirs) ReadyCount() (int, error)    { return k.ready, nil }
func (k *theirs) NotReadyCount() (int, error) { return 0, nil }

func knative(t *testing.T, concurrency int, window time.Duration) *theirs {
	nothing := func(*v1alpha1.Metric, *zap.SugaredLogger) (metrics.StatsScraper, error) { return nil, nil }
	k := &theirs{collector: metrics.NewMetricCollector(nothing, zap.NewNop().Sugar())}
	err := k.collector.CreateOrUpdate(&v1alpha1.Metric{
		ObjectMeta: metav1.ObjectMeta{Namespace: revision.Namespace, Name: revision.Name},
		Spec:       v1alpha1.MetricSpec{StableWindow: window, PanicWindow: window / 10},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.collector.Delete(revision.Namespace, revision.Name) })
	k.scaler = scaling.New(*attribute.EmptySet(), noop.NewMeterProvider(), revision.Namespace, revision.Name, k.collector, k, &scaling.DeciderSpec{
		MaxScaleUpRate: 1000, MaxScaleDownRate: 2, ScalingMetric: "concurrency", PanicThreshold: 2, StableWindow: window, Reachable: true,
		TargetValue: 0.7 * float64(concurrency), TotalValue: float64(concurrency), TargetBurstCapacity: 211,
	})
	return k
}

// load is a random walk with surges, falls, silences, and seconds that are not heard of.
type load struct {
	calls float64
	until int // the second at which it changes its mind
	mode  int
}

func (l *load) next(r *rand.Rand, second int) (calls float64, heard bool) {
	if second >= l.until {
		l.until, l.mode = second+1+r.IntN(150), r.IntN(6)
		if l.mode == 0 {
			l.calls = float64(r.IntN(3000))
		}
	}
	switch l.mode {
	case 1:
		return 0, true
	case 2:
		return 0, false
	case 3: // it grows
		l.calls = l.calls*1.1 + 1
	case 4: // it falls
		l.calls *= 0.8
	case 5: // it is noisy, and a fraction
		return l.calls * r.Float64(), r.IntN(10) > 0
	}
	l.calls = min(l.calls, 5000)
	return float64(int(l.calls)), true
}

// Instances get ready late, go away by themselves, or are bounded by a most, and both scalers are told of what is.
func TestDecisionsAreThoseOfKnativeTickByTick(t *testing.T) {
	ticks, panics := 0, 0
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 5))
		concurrency := []int{1, 2, 10, 80, 1000}[r.IntN(5)]
		window := []time.Duration{60 * time.Second, 60 * time.Second, 10 * time.Second, 5 * time.Minute}[r.IntN(4)]
		t.Run(fmt.Sprintf("seed %d: %d calls an instance, window %v", seed, concurrency, window), func(t *testing.T) {
			a, p := compare(t, r, concurrency, window)
			ticks, panics = ticks+a, panics+p
		})
	}
	t.Logf("%d decisions agree, %d of them to keep more than the stable window asks for", ticks, panics)
	if ticks < 10_000 || panics < 100 {
		t.Errorf("the loads were no test: %d decisions, %d in panic", ticks, panics)
	}
}

func compare(t *testing.T, r *rand.Rand, concurrency int, window time.Duration) (ticks, panics int) {
	k, ours := knative(t, concurrency, window), autoscale.New(concurrency, window)
	now, l := time.Unix(1_700_000_000, int64(r.IntN(1e9))), load{}
	most := 1 + r.IntN(1000)
	for second := range 1200 {
		now = now.Add(time.Second)
		if calls, heard := l.next(r, second); heard {
			k.collector.Record(revision, now, metrics.Stat{AverageConcurrentRequests: calls})
			ours.Record(now, calls)
		}
		if second%2 == 0 {
			continue
		}
		their := k.scaler.Scale(zap.NewNop().Sugar(), now)
		got := ours.Want(now, k.ready)
		if !their.ScaleValid || got != int(their.DesiredPodCount) {
			t.Fatalf("second %d, %d ready: Knative wants %d, we want %d", second, k.ready, their.DesiredPodCount, got)
		}
		ticks++
		stable, _, err := k.collector.StableAndPanicConcurrency(revision, now)
		if err != nil {
			t.Fatal(err)
		}
		if got > max(k.ready/2, int(stable/(0.7*float64(concurrency)))+1) {
			panics++
		}
		k.ready = settle(r, k.ready, min(got, most))
	}
	return ticks, panics
}

// settle is how many are ready at the next tick, of those wanted.
func settle(r *rand.Rand, ready, wanted int) int {
	switch r.IntN(4) {
	case 0:
		return ready // nothing happened yet
	case 1:
		return (ready + wanted + 1) / 2
	default:
		return wanted
	}
}
