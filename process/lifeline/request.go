package lifeline

// Request says what to run. Path is absolute; nothing is looked up. Without a path it lays the ground for one that has one:
// of its walls, Up, Port, Stage and Mounts count, and the later Mounts come on top.
type Request struct {
	Path string
	Dir  string
	Args []string // with the name of the program
	Env  []string
	Walls
}

// Walls are what stands between the function and the machine. The zero value is none.
type Walls struct {
	Up     bool
	Ports  []uint64 // of 127.0.0.1, to listen at for the node; they need a network namespace
	Socket string   // where a Dial of DialSocket goes, as the function sees it
	Port   uint64   // of 127.0.0.1, where a Dial of DialPort goes

	Stage  string  // folder on which the new root is put together; "" keeps the machine's root
	Mounts []Mount // in this order, below Stage

	ID     uint64   // user and group to become, if not 0: where there is no user namespace
	Limits []uint64 // pairs of resource and value, for setrlimit
	Caps   uint64   // number of capabilities that the kernel knows; all are given up

	Handled, HandledNet, Scoped uint64 // of landlock; a Handled of 0 leaves it out
	Rules                       []Rule

	Filter []byte // seccomp program, struct sock_filter each; empty for none
	Notify bool   // the filter has questions for the node
}

// Mount is one step in making the root. Target starts with a slash and is below Stage.
type Mount struct {
	Kind   byte
	Source string // of MountBind, MountLink; the text of MountFile; options of MountTmpfs
	Target string
	Attr   uint64 // MOUNT_ATTR_… of MountBind, the mode of MountFolder, MS_… of the others
}

// Kinds of Mount. The folder around a target is made if it is missing.
const (
	MountFolder   = 'd' // a folder
	MountBind     = 'b' // a folder of the machine, with what is mounted below it
	MountBindFile = 'f' // a file of the machine
	MountTmpfs    = 't'
	MountProc     = 'p'
	MountLink     = 'l' // a symbolic link
	MountFile     = 'w' // a file with a text
	MountReadOnly = 'r' // the root itself, at the end
)

// Rule lets the function reach what is beneath Path, as LANDLOCK_ACCESS_FS_… in Access.
type Rule struct {
	Path   string
	Access uint64
}

// Encode is the byte form: a length in 4 bytes, then each field in the order of the struct: numbers and lengths in 8 bytes, little
// end first, strings with their length.
func (r Request) Encode() []byte {
	e := encoder{buf: make([]byte, 4, 8192)}
	e.text(r.Path)
	e.text(r.Dir)
	e.texts(r.Args)
	e.texts(r.Env)
	e.flag(r.Up)
	e.numbers(r.Ports)
	e.text(r.Socket)
	e.number(r.Port)
	e.text(r.Stage)
	e.number(uint64(len(r.Mounts)))
	for _, m := range r.Mounts {
		e.number(uint64(m.Kind))
		e.text(m.Source)
		e.text(m.Target)
		e.number(m.Attr)
	}
	e.number(r.ID)
	e.numbers(r.Limits)
	e.number(r.Caps)
	e.number(r.Handled)
	e.number(r.HandledNet)
	e.number(r.Scoped)
	e.number(uint64(len(r.Rules)))
	for _, rule := range r.Rules {
		e.text(rule.Path)
		e.number(rule.Access)
	}
	e.text(string(r.Filter))
	e.flag(r.Notify)
	n := len(e.buf) - 4
	e.buf[0], e.buf[1], e.buf[2], e.buf[3] = byte(n), byte(n>>8), byte(n>>16), byte(n>>24)
	return e.buf
}

// decode is the inverse of Encode without the length.
func decode(buf []byte) (Request, bool) {
	d := decoder{buf: buf}
	r := Request{Path: d.text(), Dir: d.text(), Args: d.texts(), Env: d.texts()}
	r.Up, r.Ports, r.Socket, r.Port, r.Stage = d.number() != 0, d.numbers(), d.text(), d.number(), d.text()
	for range d.count() {
		r.Mounts = append(r.Mounts, Mount{Kind: byte(d.number()), Source: d.text(), Target: d.text(), Attr: d.number()})
	}
	r.ID, r.Limits, r.Caps = d.number(), d.numbers(), d.number()
	r.Handled, r.HandledNet, r.Scoped = d.number(), d.number(), d.number()
	for range d.count() {
		r.Rules = append(r.Rules, Rule{Path: d.text(), Access: d.number()})
	}
	r.Filter, r.Notify = []byte(d.text()), d.number() != 0
	return r, !d.bad && len(d.buf) == 0 && (len(r.Args) > 0) == (r.Path != "")
}

type encoder struct{ buf []byte }

func (e *encoder) number(n uint64) {
	for range 8 {
		e.buf = append(e.buf, byte(n))
		n >>= 8
	}
}

func (e *encoder) flag(b bool) {
	n := uint64(0)
	if b {
		n = 1
	}
	e.number(n)
}

func (e *encoder) text(s string) {
	e.number(uint64(len(s)))
	e.buf = append(e.buf, s...)
}

func (e *encoder) texts(all []string) {
	e.number(uint64(len(all)))
	for _, s := range all {
		e.text(s)
	}
}

func (e *encoder) numbers(all []uint64) {
	e.number(uint64(len(all)))
	for _, n := range all {
		e.number(n)
	}
}

// decoder reads zero values once something was bad.
type decoder struct {
	buf []byte
	bad bool
}

func (d *decoder) number() uint64 {
	if len(d.buf) < 8 {
		d.bad = true
		return 0
	}
	n := uint64(0)
	for i := 7; i >= 0; i-- {
		n = n<<8 | uint64(d.buf[i])
	}
	d.buf = d.buf[8:]
	return n
}

// count is a length: each thing that is counted has at least a number.
func (d *decoder) count() int {
	n := d.number()
	if n > uint64(len(d.buf)/8) {
		d.bad = true
		return 0
	}
	return int(n)
}

func (d *decoder) text() string {
	n := d.number()
	if n > uint64(len(d.buf)) {
		d.bad = true
		return ""
	}
	s := string(d.buf[:n])
	d.buf = d.buf[n:]
	return s
}

func (d *decoder) texts() (all []string) {
	for range d.count() {
		all = append(all, d.text())
	}
	return all
}

func (d *decoder) numbers() (all []uint64) {
	for range d.count() {
		all = append(all, d.number())
	}
	return all
}
