package sdk

import (
	"encoding/json"
	"time"

	"github.com/quipu-run/quipu"
)

// Page is a part of a listing. Next, if set, is where the following page begins: the after of state, the
// from of a book.
type Page[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"`
}

// Node is what a node says about itself. The first fields are those of DATA/node.json.
type Node struct {
	PID       int       `json:"pid"`
	HTTP      string    `json:"http"`
	DaprHTTP  string    `json:"dapr_http,omitempty"`
	DaprGRPC  string    `json:"dapr_grpc,omitempty"`
	Version   string    `json:"version"`
	Data      string    `json:"data,omitempty"`
	Started   time.Time `json:"started,omitzero"`
	UptimeSec int64     `json:"uptimeSeconds"`
}

// Namespace is one of those of a node.
type Namespace struct {
	Name      string    `json:"name"`
	Functions int       `json:"functions"`
	Applied   quipu.Seq `json:"applied"` // the last record that its views have
	Fork      *Fork     `json:"fork,omitempty"`
}

// Fork is where a namespace comes from that began as another one.
type Fork struct {
	Of      string    `json:"of"`
	At      quipu.Seq `json:"at"`      // the last record that they share
	Running bool      `json:"running"` // else nothing happens in it by itself: no triggers, schedules, or calls that wait
}

// Route is one way from outside to a function.
type Route struct {
	Path     string   `json:"path"`
	Methods  []string `json:"methods,omitempty"` // none: all
	Function string   `json:"function"`
}

// Split says which revisions share the traffic of a function.
type Split struct {
	Parts []quipu.Part `json:"parts"`
}

// Rollback says which revision gets all traffic.
type Rollback struct {
	Revision string `json:"revision,omitempty"` // none: the one from which the newest with traffic took over
}

// Alias says which revision a name is for.
type Alias struct {
	Revision string `json:"revision"`
}

// Accepted is the answer to a call that nobody waits for.
type Accepted struct {
	ID     string          `json:"id"`
	Status quipu.CallState `json:"status"`
}

// Instance is a running copy of a function.
type Instance struct {
	ID       string    `json:"id"`
	Function string    `json:"function"`
	Revision string    `json:"revision"`
	PID      int       `json:"pid"`
	State    string    `json:"state"` // starting, ready, stopping
	Calls    int       `json:"calls"` // running now
	Started  time.Time `json:"started"`
	// ColdStart is what the start took, as far as it is over.
	ColdStart ColdStart `json:"cold_start"`
}

// ColdStart is what the start of an instance took.
type ColdStart struct {
	WaitMicros  int64 `json:"wait_micros"`  // of the call that waited longest, until the start was begun; 0 if none waited
	StartMicros int64 `json:"start_micros"` // until the instance ran
	InitMicros  int64 `json:"init_micros"`  // until it listened, and was healthy
}

// Item is a key in a listing. The value is read with its key.
type Item struct {
	Key     string    `json:"key"`
	ETag    string    `json:"etag"`
	Size    int       `json:"size"`
	Expires time.Time `json:"expires,omitzero"`
}

// LogLine is a line that an instance printed.
type LogLine struct {
	Time     time.Time `json:"time"`
	Function string    `json:"function"`
	Instance string    `json:"instance"`
	Stream   string    `json:"stream"` // stdout, stderr, or platform for what the node says of the instance
	Call     string    `json:"call,omitempty"`
	Text     string    `json:"text"`
	Place    string    `json:"place"` // in the output of the function: where to go on behind this line
}

// Published is the answer to a publish: the id of the event, or those of a batch, in its order.
type Published struct {
	ID  string   `json:"id,omitempty"`
	IDs []string `json:"ids,omitzero"`
}

// Event is one event of a topic. It has Event, or what was published without an envelope in the fields from
// MessageID to DataBase64.
type Event struct {
	Topic   string          `json:"topic"`
	Offset  uint64          `json:"offset"`
	ID      string          `json:"id"` // SEQ.N: its place in the log
	Time    time.Time       `json:"time"`
	Expires time.Time       `json:"expires,omitzero"`
	Event   json.RawMessage `json:"event,omitempty"` // the CloudEvent

	MessageID   string          `json:"messageId,omitempty"`
	ContentType string          `json:"contentType,omitempty"`
	Data        json.RawMessage `json:"data,omitempty"` // JSON as it is, text as a string
	DataBase64  []byte          `json:"data_base64,omitempty"`

	Dead *quipu.DeadLetter `json:"dead,omitempty"` // why it was given up
	Only string            `json:"only,omitempty"` // the one subscription that gets it
}

// SeekTo says where a subscription goes on.
type SeekTo struct {
	From string `json:"from"`
}

// Redriven counts the dead letters that were published again.
type Redriven struct {
	Redriven int `json:"redriven"`
}

// Progress is a line of a verify. The last one has OK or Problem.
type Progress struct {
	Done    int64    `json:"done"` // bytes
	Total   int64    `json:"total"`
	OK      bool     `json:"ok,omitempty"`
	Problem *Problem `json:"problem,omitempty"`
}

// Problem is the body of every error of the admin API. The status of the reply is the code's.
type Problem struct {
	Code  quipu.Code `json:"code"`
	Error string     `json:"error"`
	Hint  string     `json:"hint,omitempty"`
	Seq   quipu.Seq  `json:"seq,omitempty"` // a conflict's winner, a trim point
}

// HeaderNamespace names the namespace of a request; without it, NamespaceDefault.
const (
	HeaderNamespace  = "Quipu-Namespace"
	HeaderToken      = "Quipu-Token"
	HeaderExpires    = "Quipu-Expires" // of a value read: RFC 3339
	NamespaceDefault = "default"
)

// Attachment is an application that runs by itself and becomes part of a namespace.
type Attachment struct {
	Port         int               `json:"port"`     // it listens on, or will; 0: it only calls
	Protocol     string            `json:"protocol"` // http, grpc, https, grpcs or h2c
	Concurrency  int               `json:"concurrency,omitempty"`
	DaprHTTPPort int               `json:"daprHTTPPort,omitempty"` // it wants; 0: any free one
	DaprGRPCPort int               `json:"daprGRPCPort,omitempty"`
	AppToken     string            `json:"appToken,omitempty"`  // that it asks for in dapr-api-token
	Resources    map[string]string `json:"resources,omitempty"` // Dapr's resource files, by name
	Dir          string            `json:"dir,omitempty"`       // on the node's machine, that paths of components are below
	Env          map[string]string `json:"env,omitempty"`       // that components may refer to

	Address      string          `json:"address,omitempty"`      // host that it listens on; none: 127.0.0.1
	Health       *AttachedHealth `json:"health,omitempty"`       // how it is asked whether it is well; none: it is taken to be
	Listen       []string        `json:"listen,omitempty"`       // hosts of its Dapr ports; none: 127.0.0.1
	Socket       string          `json:"socket,omitempty"`       // folder of Unix sockets that are there in place of the ports
	BodyBytesMax int64           `json:"bodyBytesMax,omitempty"` // of a request to its Dapr ports; 0: 64 MiB
	Token        string          `json:"token,omitempty"`        // that it must send in dapr-api-token; none: the node makes one
	Open         bool            `json:"open,omitempty"`         // it need not send the token, whatever the node asks of its own instances
}

// AttachedHealth is how an attached application is asked whether it is well. What is 0 or empty has the default of Dapr.
type AttachedHealth struct {
	Path           string `json:"path,omitempty"` // of an application that speaks HTTP; none: /healthz
	IntervalMillis int    `json:"intervalMillis,omitempty"`
	TimeoutMillis  int    `json:"timeoutMillis,omitempty"`
	Threshold      int    `json:"threshold,omitempty"` // failures in a row before it is unwell
}

// AttachedResources are resource files that take the place of those that an application was attached with.
type AttachedResources struct {
	Resources map[string]string `json:"resources"` // by name
	Env       map[string]string `json:"env,omitempty"`
}

// States of an attached application.
const (
	AttachedOpen      = "open"      // its Dapr ports are
	AttachedFound     = "found"     // it accepts connections
	AttachedListening = "listening" // it was heard, and gets events and calls; again each time its resources changed, or it is well again
	AttachedUnwell    = "unwell"    // it was well, and gets nothing until it is again
	AttachedShutdown  = "shutdown"  // it asked to be ended
)

// Attached tells how an attached application stands: a line each time that changes. It stays attached as long as the
// client reads.
type Attached struct {
	State         string   `json:"state,omitempty"`
	ID            string   `json:"id,omitempty"`       // of this attachment
	DaprHTTP      string   `json:"daprHTTP,omitempty"` // ports, or paths of sockets
	DaprGRPC      string   `json:"daprGRPC,omitempty"`
	Token         string   `json:"token,omitempty"` // for dapr-api-token
	Subscriptions []string `json:"subscriptions,omitempty"`
	Warning       string   `json:"warning,omitempty"` // what it said that cannot be used
	Problem       *Problem `json:"problem,omitempty"` // why it ended
}

// Backup is what a backup says of itself.
type Backup struct {
	Format    int              `json:"format"`
	Version   string           `json:"version"` // of the node that made it
	Time      time.Time        `json:"time"`
	From      quipu.Seq        `json:"from"` // it can be restored up to any seq from here on, 0 if from the beginning,
	Tail      quipu.Seq        `json:"tail"` // to here
	Snapshots []BackupSnapshot `json:"snapshots"`
}

// BackupSnapshot is a snapshot of the views in a backup.
type BackupSnapshot struct {
	Fork   string    `json:"fork,omitempty"` // whose views it is of; none: the node's
	Folder string    `json:"folder"`
	Upto   quipu.Seq `json:"upto"` // the newest record that it covers
}
