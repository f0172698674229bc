package quipu_test

import (
	"math"
	"reflect"
	"testing"

	"github.com/quipu-run/quipu"
)

// Whoever adds a field to Usage must add it to Add and to Fields, which are what bills and records are made of.
func TestEveryFieldOfUsageIsAddedAndStored(t *testing.T) {
	kind := reflect.TypeFor[quipu.Usage]()
	var whole quipu.Usage
	if len(whole.Fields()) != kind.NumField() {
		t.Fatalf("%d of %d fields are stored", len(whole.Fields()), kind.NumField())
	}
	for i := range kind.NumField() {
		var one, sum quipu.Usage
		reflect.ValueOf(&one).Elem().Field(i).SetInt(3)
		sum.Add(one)
		if sum != one {
			t.Errorf("%s is not added: %+v", kind.Field(i).Name, sum)
		}
		stored := 0
		for _, n := range one.Fields() {
			if *n == 3 {
				stored++
			}
		}
		if stored != 1 {
			t.Errorf("%s is stored %d times", kind.Field(i).Name, stored)
		}
	}
}

func TestASumThatDoesNotFitStaysAtTheLargestValue(t *testing.T) {
	u := quipu.Usage{CPUMicros: math.MaxInt64 - 1, MemoryMB: 5}
	u.Add(quipu.Usage{CPUMicros: 2, MemoryMB: 3})
	if u.CPUMicros != math.MaxInt64 || u.MemoryMB != 5 {
		t.Errorf("the sum is %+v", u)
	}
}
