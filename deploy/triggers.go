package deploy

import (
	"slices"
	"strconv"
	"strings"

	"github.com/quipu-run/quipu"
)

var methods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"}

// checkTriggers refuses what triggers of document i cannot be.
func (m *manifest) checkTriggers(i int) error {
	topics, schedules := map[string]bool{}, map[quipu.ScheduleTrigger]bool{}
	for n, t := range m.functions[i].Spec.Triggers {
		at := []string{"spec", "triggers", strconv.Itoa(n)}
		fault := func(format string, args ...any) error { return m.fault(i, at, format, args...) }
		kinds := 0
		for _, is := range []bool{t.HTTP != nil, t.Topic != nil, t.Schedule != nil} {
			if is {
				kinds++
			}
		}
		var err error
		switch {
		case kinds != 1:
			return fault("a trigger needs one of http, topic and schedule")
		case t.HTTP != nil:
			err = checkHTTP(t.HTTP, fault)
		case t.Topic != nil && topics[t.Topic.Name]:
			return fault("the function has two triggers for the topic %q", t.Topic.Name)
		case t.Topic != nil:
			topics[t.Topic.Name] = true
			err = checkTopic(m.functions[i], t.Topic, fault)
		case t.Schedule != nil:
			same := quipu.ScheduleTrigger{Cron: t.Schedule.Cron, Timezone: t.Schedule.Timezone, Path: t.Schedule.Path}
			if schedules[same] {
				return fault("the function has the same schedule twice")
			}
			schedules[same] = true
			err = m.checkSchedules(t.Schedule, fault)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

type faultFunc func(format string, args ...any) error

func checkHTTP(t *quipu.HTTPTrigger, fault faultFunc) error {
	if err := checkPath(t.Path, fault); err != nil {
		return err
	}
	if t.Path == "/-" || strings.HasPrefix(t.Path, "/-/") {
		return fault("the path %q is the platform's", t.Path)
	}
	for _, method := range t.Methods {
		if !slices.Contains(methods, method) {
			return fault("%q is no HTTP method; write it in capitals", method)
		}
	}
	return nil
}

func checkPath(path string, fault faultFunc) error {
	if !strings.HasPrefix(path, "/") {
		return fault("the path %q of a trigger must start with /", path)
	}
	return nil
}

func checkRetry(r quipu.RetrySpec, fault faultFunc) error {
	switch {
	case r.Max < 0 || r.Max > quipu.RetryMaxMax:
		return fault("retry.max is %d, but must be from 0 to %d", r.Max, quipu.RetryMaxMax)
	case r.Backoff <= 0 || r.Backoff.Std() > quipu.BackoffMax:
		return fault("retry.backoff is %s, but must be more than 0 and at most %s", r.Backoff.Std(), quipu.BackoffMax)
	}
	return nil
}

func checkTopic(d document, t *quipu.TopicTrigger, fault faultFunc) error {
	dead := t.DeadLetter
	if dead == "" {
		dead = quipu.DeadLetterTopic(d.Metadata.Name)
	}
	switch {
	case t.Name == "" || len(t.Name) > quipu.TopicNameMax || strings.HasPrefix(t.Name, quipu.PlatformTopicStart):
		return fault("%q cannot be the name of a topic", t.Name)
	case t.Batch < 1 || t.Batch > quipu.BatchEventsMax:
		return fault("batch is %d, but must be from 1 to %d", t.Batch, quipu.BatchEventsMax)
	case t.From != "" && t.From != quipu.FromLatest && t.From != quipu.FromEarliest:
		return fault("from is %q, but must be latest or earliest", t.From)
	case len(dead) > quipu.TopicNameMax || strings.HasPrefix(dead, quipu.PlatformTopicStart):
		return fault("%q cannot be the name of a dead-letter topic", dead)
	case dead == t.Name:
		return fault("the topic %q would be its own dead-letter topic; name another with deadLetter", t.Name)
	}
	if err := checkRetry(t.Retry, fault); err != nil {
		return err
	}
	return checkPath(t.Path, fault)
}

func (m *manifest) checkSchedules(t *quipu.ScheduleTrigger, fault faultFunc) error {
	if t.Missed != quipu.MissedLast && t.Missed != quipu.MissedNone && t.Missed != quipu.MissedAll {
		return fault("missed is %q, but must be last, none or all", t.Missed)
	}
	if err := m.checkSchedule(t.Cron, t.Timezone); err != nil {
		return fault("%v", err)
	}
	if err := checkRetry(t.Retry, fault); err != nil {
		return err
	}
	return checkPath(t.Path, fault)
}
