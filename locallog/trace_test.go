package locallog

import (
	"fmt"
	"path"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// opLog notes the operations that matter for durability. Repeated writes to one file count as one line.
type opLog struct {
	mu    sync.Mutex // guards below
	more  sync.Cond  // on mu, at every line
	lines []string
}

var opNames = map[errorfs.OpKind]string{
	errorfs.OpCreate: "create", errorfs.OpRename: "rename", errorfs.OpRemove: "remove", errorfs.OpMkdirAll: "mkdir",
	errorfs.OpFileWrite: "write", errorfs.OpFileWriteAt: "write", errorfs.OpFileSync: "sync", errorfs.OpFileSyncData: "datasync",
}

func (o *opLog) add(op errorfs.Op) {
	name, ok := opNames[op.Kind]
	if !ok {
		return
	}
	line := name + " " + path.Base(op.Path)
	if op.Kind == errorfs.OpFileWriteAt {
		line += fmt.Sprintf(" at %d", op.Offset)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if n := len(o.lines); n > 0 && o.lines[n-1] == line {
		return
	}
	o.lines = append(o.lines, line)
	o.more.Broadcast()
}

// take waits for at least so many lines, since some come from the background, and answers and forgets them.
func (o *opLog) take(atLeast int) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.lines) < atLeast {
		o.more.Wait()
	}
	defer func() { o.lines = nil }()
	if len(o.lines) == 0 {
		return "nothing\n"
	}
	return strings.Join(o.lines, "\n") + "\n"
}
