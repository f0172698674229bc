// Package peers is how nodes of one user on one machine find each other's applications, as sidecars of Dapr do.
//
// Each node has a file in a folder that belongs to the user alone: what it hosts, and where. The node holds a lock on its file for as
// long as it lives, so a file without a lock is of a process that is gone, however it ended: it is not believed, and the next that
// looks removes it with what the process left behind. Nothing else is kept. Who does not belong to the user sees nothing, and nobody is
// told of what is on another machine.
package peers

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Limits of the folder.
const (
	peersMax     = 1000    // files that are looked at
	peerBytesMax = 4 << 10 // of a file
	// settled is how old the folder's time must be before it is taken to tell of every change since: clocks of file systems
	// have ticks.
	settled = 50 * time.Millisecond
)

// Names in the folder.
const (
	fileEnd = ".json"
	dataEnd = ".data"
	tempEnd = ".tmp"
)

// Peer is an application that a node hosts.
type Peer struct {
	App     string    `json:"app"`
	HTTP    string    `json:"http"` // addresses of the node's Dapr API, for who is no application of it
	GRPC    string    `json:"grpc"`
	Token   string    `json:"token,omitempty"` // that they ask for
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
}

// Folder is where the nodes of a user are known.
type Folder struct {
	dir string

	mu    sync.Mutex // guards the fields below
	known map[string][]Peer
	as    time.Time // the folder was when known was read; zero: read it again
}

// Open makes the folder if it is not there. One that others could write to, or that is not the user's, is refused.
func Open(dir string) (*Folder, error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	info, err := os.Lstat(dir) // a link could lead to what is somebody else's
	if err != nil {
		return nil, err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || info.Mode().Perm()&0o077 != 0 || !ok || int(owner.Uid) != os.Getuid() {
		return nil, fmt.Errorf("%s must be a folder of yours that is closed to others (mode 0700): remove it, or set TMPDIR", dir)
	}
	return &Folder{dir: dir}, nil
}

// UserDir is the folder of the user who asks.
func UserDir() string {
	return filepath.Join(os.TempDir(), "quipu-daprd-"+strconv.Itoa(os.Getuid()))
}

// Member is a node in the folder.
type Member struct {
	folder *Folder
	name   string // of its files, without an end
	files  []*os.File
}

// Join adds a node, which hosts nothing yet, and removes what dead ones left.
func (f *Folder) Join() (*Member, error) {
	if _, err := f.read(); err != nil {
		return nil, err
	}
	m := &Member{folder: f, name: fmt.Sprintf("%d-%s", os.Getpid(), strconv.FormatInt(time.Now().UnixNano(), 36))}
	if err := m.write(Peer{}); err != nil {
		return nil, errors.Join(err, m.Leave())
	}
	return m, nil
}

// Data is a folder for what the node keeps while it lives; it is for the node to make it.
func (m *Member) Data() string { return filepath.Join(m.folder.dir, m.name+dataEnd) }

// Announce tells what the node hosts, in place of what it told before.
func (m *Member) Announce(p Peer) error {
	p.PID, p.Started = os.Getpid(), time.Now().UTC()
	return m.write(p)
}

// write puts a locked file in place, whole. The files before it stay locked until the node leaves: who has just opened one must not
// take the node for dead.
func (m *Member) write(p Peer) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(m.folder.dir, m.name+".*"+tempEnd)
	if err != nil {
		return err
	}
	m.files = append(m.files, file)
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return errors.Join(fmt.Errorf("lock %s: %w", file.Name(), err), os.Remove(file.Name()))
	}
	if _, err := file.Write(text); err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return os.Rename(file.Name(), filepath.Join(m.folder.dir, m.name+fileEnd))
}

// Leave removes the node with its data.
func (m *Member) Leave() error {
	err := os.Remove(filepath.Join(m.folder.dir, m.name+fileEnd))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	err = errors.Join(err, os.RemoveAll(m.Data()))
	for _, file := range m.files {
		err = errors.Join(err, file.Close())
	}
	m.files = nil
	return err
}

// Find answers who hosts an application.
func (f *Folder) Find(app string) ([]Peer, error) {
	all, err := f.read()
	return all[app], err
}

// Forget makes the next Find look at every file: one of them told of a node that does not answer.
func (f *Folder) Forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.as = time.Time{}
}

// read looks at all files, unless the folder is as it was.
func (f *Folder) read() (map[string][]Peer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.dir)
	if err != nil {
		return nil, err
	}
	as := info.ModTime()
	if !f.as.IsZero() && f.as.Equal(as) {
		return f.known, nil
	}
	names, err := namesIn(f.dir)
	if err != nil {
		return nil, err
	}
	f.known, f.as = map[string][]Peer{}, time.Time{}
	alive := map[string]bool{}
	for _, name := range names {
		p, ok := f.look(name)
		if alive[strings.TrimSuffix(name, fileEnd)] = ok; ok && p.App != "" {
			f.known[p.App] = append(f.known[p.App], p)
		}
	}
	if time.Since(as) > settled {
		f.as = as
	}
	return f.known, f.sweep(names, alive)
}

func namesIn(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(3 * peersMax)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	slices.Sort(names)
	return names, err
}

// look reads the file of a node, unless nobody holds its lock.
func (f *Folder) look(name string) (p Peer, alive bool) {
	if !strings.HasSuffix(name, fileEnd) {
		return p, false
	}
	file, err := os.Open(filepath.Join(f.dir, name))
	if err != nil {
		return p, false // it left this moment
	}
	defer file.Close()
	if syscall.Flock(int(file.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) == nil {
		return p, false
	}
	text := make([]byte, peerBytesMax)
	n, _ := file.Read(text) // what cannot be read is no JSON
	if json.Unmarshal(text[:n], &p) != nil {
		return Peer{}, true
	}
	return p, true
}

// sweep removes what belongs to nobody who is alive.
func (f *Folder) sweep(names []string, alive map[string]bool) (err error) {
	for _, name := range names {
		if f.isLeft(name, alive) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(f.dir, name)))
		}
	}
	return err
}

// isLeft tells whether a dead node left a file. That a node was not seen in a listing does not mean that it is not there: listings of
// folders that change may have the newer file and not the older.
func (f *Folder) isLeft(name string, alive map[string]bool) bool {
	switch filepath.Ext(name) {
	case fileEnd:
		return !alive[strings.TrimSuffix(name, fileEnd)]
	case dataEnd:
		owner := strings.TrimSuffix(name, dataEnd)
		_, is := f.look(owner + fileEnd)
		return !alive[owner] && !is
	case tempEnd:
		return !f.isYoung(name)
	}
	return false
}

// isYoung tells whether a file that has not got its name yet may still get it.
func (f *Folder) isYoung(name string) bool {
	info, err := os.Lstat(filepath.Join(f.dir, name))
	return err == nil && time.Since(info.ModTime()) < time.Minute
}
