package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const recordSuffix = ".instance"

// record is what the next node needs to find what an instance left behind. It is not synced: after a
// power loss there are no processes, and after a kill the page cache is still there.
type record struct {
	Boot   string `json:"boot"` // of the machine; process ids mean nothing after another
	Mark   string `json:"mark"`
	PID    int    `json:"pid"`
	Start  uint64 `json:"start"` // of PID, so that a number used again is not mistaken
	Helper int    `json:"helper"`
	Since  uint64 `json:"since"` // start of Helper
}

func (i *Instance) writeRecord() error {
	r := record{
		Boot: bootID(), Mark: i.mark,
		PID: i.pid, Start: startTime(i.pid), Helper: i.process.Pid, Since: startTime(i.process.Pid),
	}
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return os.WriteFile(i.record, data, 0o600)
}

// killStrays kills what the records in dir lead to, and removes them.
func killStrays(dir string) error {
	names, err := filepath.Glob(filepath.Join(escapeGlob(dir), "*"+recordSuffix))
	if err != nil {
		return err
	}
	var strays []record
	for _, name := range names {
		r, err := readRecord(name)
		if err != nil {
			return err
		}
		if r.Boot == bootID() && r.Mark != "" {
			strays = append(strays, r)
		}
	}
	if err := killRecorded(strays); err != nil {
		return err
	}
	for _, name := range names {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// readRecord answers an empty record for a file that was cut while it was written: then
// its node died before the instance had run for long, and the lifeline was not touched.
func readRecord(name string) (record, error) {
	var r record
	data, err := os.ReadFile(name)
	if err != nil {
		return r, fmt.Errorf("record of an instance: %w", err)
	}
	if json.Unmarshal(data, &r) != nil {
		return record{}, nil
	}
	return r, nil
}

// escapeGlob keeps a directory's own name from being a pattern.
func escapeGlob(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}
