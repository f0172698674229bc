// Package secret reads and holds the secrets of an application: the file secrets.env beside its quipu.yaml.
//
//	# a comment
//	DB_URL=postgres://db/app        # the end of a value without quotes
//	export TOKEN='single quotes: every byte as it is'
//	KEY="double quotes: \n \r \t \" \\ mean what they do in Go
//	and, like single ones, they may go over several lines"
//
// Nothing is expanded: a $ is a $, since passwords have them. A name that comes twice is a mistake.
//
// No value is in an error, and a Set prints as the number of what it holds, so that a value gets into a log or
// a record only by being taken out on purpose.
package secret

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/quipu-run/quipu"
)

// File is the name of the file, in the folder of quipu.yaml.
const File = "secrets.env"

// Limits of the file.
const (
	BytesMax = 1 << 20
	Max      = 1000 // secrets
	nameMax  = 256
)

var (
	name    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)
	comment = regexp.MustCompile(`(^|[ \t])#.*`)
)

// Set is secrets by name. The zero Set is empty.
type Set struct{ values map[string]string }

// Parse reads a file. CodeManifest, with the line.
func Parse(text []byte) (Set, error) {
	p := parser{rest: string(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))), line: 1, values: map[string]string{}}
	if len(text) > BytesMax {
		return Set{}, p.fail("the file has more than %d bytes", BytesMax)
	}
	if !utf8.Valid(text) || strings.ContainsRune(p.rest, 0) {
		return Set{}, p.fail("the file is no UTF-8 text")
	}
	for p.rest != "" {
		if err := p.entry(); err != nil {
			return Set{}, err
		}
	}
	return Set{p.values}, nil
}

// Values are the secrets themselves, in a map of the caller's own.
func (s Set) Values() map[string]string { return maps.Clone(s.values) }

// Names are in order.
func (s Set) Names() []string { return slices.Sorted(maps.Keys(s.values)) }

// Format keeps values from being printed by any verb.
func (s Set) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "%d secrets", len(s.values)) }

// LogValue keeps values from being logged.
func (s Set) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(s)) }

// MarshalText keeps values from being encoded.
func (s Set) MarshalText() ([]byte, error) { return []byte(fmt.Sprint(s)), nil }

// parser stands at the start of a line, unless it is inside entry.
type parser struct {
	rest   string
	line   int
	values map[string]string
}

func (p *parser) fail(format string, args ...any) error {
	return &quipu.Error{Code: quipu.CodeManifest, Op: "secrets.read", Text: fmt.Sprintf("%s:%d: ", File, p.line) + fmt.Sprintf(format, args...),
		Hint: "write NAME=VALUE, with quotes around a value that has spaces, # or several lines"}
}

// entry reads a line, or the lines of one value.
func (p *parser) entry() error {
	line, _, _ := strings.Cut(p.rest, "\n")
	trimmed := strings.TrimSpace(line)
	if trimmed == "" || trimmed[0] == '#' {
		p.skip(len(line))
		return nil
	}
	left, _, ok := strings.Cut(line, "=")
	if !ok {
		return p.fail("there is no = in the line")
	}
	key := strings.TrimSpace(left)
	if after, ok := strings.CutPrefix(key, "export"); ok && strings.TrimLeft(after, " \t") != after {
		key = strings.TrimLeft(after, " \t")
	}
	if !name.MatchString(key) || len(key) > nameMax {
		return p.fail("what is before = is not a name of letters, digits and _ . - with up to %d bytes", nameMax)
	}
	if _, twice := p.values[key]; twice {
		return p.fail("%s is there already", key)
	}
	if len(p.values) == Max {
		return p.fail("there are more than %d secrets", Max)
	}
	p.rest = strings.TrimLeft(p.rest[len(left)+1:], " \t")
	value, err := p.value()
	p.values[key] = value
	return err
}

// skip passes n bytes and the end of the line.
func (p *parser) skip(n int) {
	p.rest = strings.TrimPrefix(p.rest[n:], "\n")
	p.line++
}

// value reads up to the end of its last line.
func (p *parser) value() (string, error) {
	if p.rest != "" && (p.rest[0] == '"' || p.rest[0] == '\'') {
		return p.quoted(p.rest[0])
	}
	line, _, _ := strings.Cut(p.rest, "\n")
	p.skip(len(line))
	return strings.TrimSpace(comment.ReplaceAllString(line, "")), nil
}

var escapes = map[byte]string{'n': "\n", 'r': "\r", 't': "\t", '"': `"`, '\\': `\`}

func (p *parser) quoted(quote byte) (string, error) {
	var value strings.Builder
	for i := 1; i < len(p.rest); i++ {
		c := p.rest[i]
		switch {
		case c == quote:
			return value.String(), p.end(i + 1)
		case c == '\\' && quote == '"' && i+1 < len(p.rest) && escapes[p.rest[i+1]] != "":
			i++
			value.WriteString(escapes[p.rest[i]])
		default:
			value.WriteByte(c)
		}
	}
	return "", p.fail("a value that starts with %c has no end", quote)
}

// end passes a quoted value of n bytes; only a comment may follow in its line.
func (p *parser) end(n int) error {
	p.line += strings.Count(p.rest[:n], "\n")
	p.rest = p.rest[n:]
	line, _, _ := strings.Cut(p.rest, "\n")
	if more := strings.TrimSpace(line); more != "" && more[0] != '#' {
		return p.fail("something follows the closing quote")
	}
	p.skip(len(line))
	return nil
}
