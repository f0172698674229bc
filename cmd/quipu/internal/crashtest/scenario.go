package crashtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/quipu-run/quipu"
)

// File is what the folder of an application has, so that it can be tested.
const File = "quipu.test.yaml"

// Limits of a scenario.
const (
	fileBytesMax = 1 << 20
	stepsMax     = 1000
	advanceMax   = 400 * 24 * time.Hour
)

// Scenario is what happens to an application, one step after the other, each when the one before has had all its effects.
type Scenario struct {
	Steps []Step `yaml:"steps"`
}

// Step is one of the three.
type Step struct {
	Name    string         `yaml:"name"`
	Call    *Call          `yaml:"call"`
	Publish *Publish       `yaml:"publish"`
	Advance quipu.Duration `yaml:"advance"` // of the clock
	Expect  Expect         `yaml:"expect"`  // of a call, undisturbed
}

// Call is made again, with the same key, until it is answered.
type Call struct {
	Function string            `yaml:"function"`
	Method   string            `yaml:"method"` // default POST
	Path     string            `yaml:"path"`   // default /
	Data     any               `yaml:"data"`   // text as it is, anything else as JSON
	Headers  map[string]string `yaml:"headers"`
	Key      string            `yaml:"key"` // its Idempotency-Key; default: one of its own for each step
}

// Publish is an event.
type Publish struct {
	Topic string `yaml:"topic"`
	Data  any    `yaml:"data"`
}

// Expect is what a step is answered with; a zero field is not looked at.
type Expect struct {
	Status int     `yaml:"status"`
	Body   *string `yaml:"body"`
}

// Load reads the scenario of an application. CodeUsage, with the place of the mistake.
func Load(dir string) (Scenario, error) {
	text, err := os.ReadFile(filepath.Join(dir, File))
	if errors.Is(err, fs.ErrNotExist) {
		return Scenario{}, &quipu.Error{Code: quipu.CodeUsage, Op: "test", Text: fmt.Sprintf("there is no %s in %s", File, dir),
			Hint: "list the calls to make in it:\n  steps:\n    - call: {function: NAME, data: {…}}\ndocs/reference/test.md has all fields"}
	}
	if err != nil {
		return Scenario{}, fmt.Errorf("read scenario: %w", err)
	}
	return Parse(text)
}

// Parse reads and checks the text of a scenario, and fills in what it leaves out.
func Parse(text []byte) (s Scenario, err error) {
	if len(text) > fileBytesMax {
		return s, mistake("it has more than %d bytes", fileBytesMax)
	}
	in := yaml.NewDecoder(bytes.NewReader(text))
	in.KnownFields(true)
	if err := in.Decode(&s); err != nil && !errors.Is(err, io.EOF) {
		return s, mistake("%s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if len(s.Steps) == 0 || len(s.Steps) > stepsMax {
		return s, mistake("it has %d steps; there must be from 1 to %d", len(s.Steps), stepsMax)
	}
	for i := range s.Steps {
		if err := s.Steps[i].complete(i + 1); err != nil {
			return s, err
		}
	}
	return s, nil
}

func mistake(format string, args ...any) error {
	return &quipu.Error{Code: quipu.CodeUsage, Op: "test", Text: File + ": " + fmt.Sprintf(format, args...), Hint: "docs/reference/test.md has all fields"}
}

func (s *Step) complete(number int) error {
	kinds := 0
	for _, is := range []bool{s.Call != nil, s.Publish != nil, s.Advance != 0} {
		if is {
			kinds++
		}
	}
	switch {
	case kinds != 1:
		return mistake("step %d must be one of call, publish and advance", number)
	case s.Call == nil && s.Expect != Expect{}:
		return mistake("step %d: only a call can expect an answer", number)
	case s.Advance < 0 || s.Advance.Std() > advanceMax:
		return mistake("step %d: advance is %s, but must be up to %s", number, s.Advance.Std(), advanceMax)
	case s.Publish != nil && s.Publish.Topic == "":
		return mistake("step %d: publish needs a topic", number)
	}
	if c := s.Call; c != nil {
		return c.complete(number)
	}
	return nil
}

func (c *Call) complete(number int) error {
	if c.Method == "" {
		c.Method = "POST"
	}
	if c.Path == "" {
		c.Path = "/"
	}
	if c.Key == "" {
		c.Key = fmt.Sprintf("quipu-test-%d", number)
	}
	if c.Function == "" || !strings.HasPrefix(c.Path, "/") {
		return mistake("step %d: call needs a function, and a path that starts with /", number)
	}
	return nil
}

// Title is what a report calls a step.
func (s Step) Title() string {
	switch {
	case s.Name != "":
		return s.Name
	case s.Call != nil:
		return s.Call.Method + " " + s.Call.Function + s.Call.Path
	case s.Publish != nil:
		return "publish " + s.Publish.Topic
	}
	return "advance " + s.Advance.Std().String()
}

// body is data as it is sent, and its type.
func body(data any) ([]byte, string, error) {
	switch d := data.(type) {
	case nil:
		return nil, "", nil
	case string:
		if json.Valid([]byte(d)) {
			return []byte(d), "application/json", nil
		}
		return []byte(d), "text/plain; charset=utf-8", nil
	}
	text, err := json.Marshal(data)
	return text, "application/json", err
}
