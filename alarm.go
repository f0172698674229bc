package quipu

import (
	"context"
	"time"
)

// Limits of alarms.
const (
	AlarmNameMax = 512 // bytes
	AlarmDataMax = 1 << 20
	AlarmsMax    = 1_000_000 // of a namespace
	AlarmsList   = 1000      // of one page
)

// AlarmKind tells what an alarm does when it is due.
type AlarmKind string

// Kinds of alarms.
const (
	AlarmJob      AlarmKind = "job"      // calls its application
	AlarmReminder AlarmKind = "reminder" // calls an actor, in its turn
)

// AlarmKey names an alarm.
type AlarmKey struct {
	Kind AlarmKind `json:"kind"`
	App  string    `json:"app,omitempty"` // of a job
	// ActorType and ActorID are of a reminder; they may not have a NUL byte.
	ActorType string `json:"actorType,omitempty"`
	ActorID   string `json:"actorId,omitempty"`
	Name      string `json:"name"`
}

// Alarm is what is to be delivered at a time, or again and again: a job or a reminder of Dapr.
type Alarm struct {
	AlarmKey
	// Schedule is a cron expression of five or six fields (seconds first), or @every, @daily, …; or an ISO 8601 or Go
	// duration between times. "" has it happen once.
	Schedule string `json:"schedule,omitempty"`
	// DueTime is when it happens first: RFC 3339, or a duration from now. "" leaves it to Schedule.
	DueTime string `json:"dueTime,omitempty"`
	Repeats int    `json:"repeats,omitempty"` // how often at most; 0 without end
	// TTL is when it goes, whatever is left: RFC 3339, or a duration from now. "" never.
	TTL      string     `json:"ttl,omitempty"`
	Data     []byte     `json:"data,omitempty"`
	DataType string     `json:"dataType,omitempty"` // type URL of Data if it is a google.protobuf.Any; "" JSON
	Retry    AlarmRetry `json:"retry"`
	// Keep refuses the alarm if there is one of its name (CodeAlarmExists), instead of putting it in its place.
	Keep bool `json:"-"`

	// Of one that stands.
	Created  time.Time `json:"created,omitzero"`
	Next     time.Time `json:"next,omitzero"`    // that it is due, or is tried again
	Expires  time.Time `json:"expires,omitzero"` // by TTL
	Fired    int       `json:"fired"`            // times that it was delivered, or given up
	Attempts int       `json:"attempts"`         // of the delivery that is due now
	Cause    string    `json:"cause,omitempty"`  // what the last attempt failed with
}

// AlarmRetry says what follows a delivery that failed. The zero value tries three times, a second apart, as Dapr does.
type AlarmRetry struct {
	Drop     bool     `json:"drop,omitempty"`     // nothing: it counts as delivered
	Interval Duration `json:"interval,omitempty"` // between attempts; 0 at once
	Max      *int     `json:"max,omitempty"`      // attempts after the first; nil without end, if Interval is set
}

// Alarms keeps jobs and reminders. What changes something returns when it is durable; inside an atomic call
// it is part of the transaction. CodeAlarm, CodeAlarmExists, CodeNoAlarm.
type Alarms interface {
	SetAlarm(ctx context.Context, a Alarm) error
	// CancelAlarm removes one. CodeNoAlarm.
	CancelAlarm(ctx context.Context, k AlarmKey) error
	// CancelAlarms removes those whose name, or, if ActorID is "", whose type starts like k, and answers how many. Outside of a call that
	// is done by pages of AlarmsList, each whole: an error leaves some removed.
	CancelAlarms(ctx context.Context, k AlarmKey) (int, error)
	Alarm(ctx context.Context, k AlarmKey) (Alarm, error)
	// ListAlarms lists those whose names start with k.Name, of k's application or actor; all of the kind if neither is set.
	ListAlarms(ctx context.Context, k AlarmKey, after string, limit int) (list []Alarm, next string, err error)
}
