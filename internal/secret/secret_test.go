package secret

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"testing"

	"github.com/quipu-run/quipu"
)

func TestAFileOfSecretsIsReadAsItIsWritten(t *testing.T) {
	got, err := Parse([]byte("\xef\xbb\xbf# comment\r\n\n A=1 \nB = two words # comment\nexport C='a $b \\n #c'\nD=\"x\\n\\\"y\\\" \\q $Z\" # c\r\n" +
		"PEM=\"-----BEGIN\nabc\n-----END\"\nE=\nF=#none\nG=a#b#c # d\nexported=yes\nexport\tH=p=q\nlast=pa$$word"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"A": "1", "B": "two words", "C": `a $b \n #c`, "D": "x\n\"y\" \\q $Z", "PEM": "-----BEGIN\nabc\n-----END",
		"E": "", "F": "", "G": "a#b#c", "exported": "yes", "H": "p=q", "last": "pa$$word"}
	if !maps.Equal(got.Values(), want) {
		t.Errorf("got  %q\nwant %q", got.Values(), want)
	}
	if names := strings.Join(got.Names(), " "); names != "A B C D E F G H PEM exported last" {
		t.Errorf("names: %s", names)
	}
}

func TestAMistakeIsToldByItsLineAndNeverByItsValue(t *testing.T) {
	for text, want := range map[string]string{
		"A=1\nhunter2":                           "secrets.env:2: there is no =",
		"A=\"1\n2\"\nB=\"hunter2":                "secrets.env:3: a value that starts with \" has no end",
		"A='hunter2' hunter2":                    "secrets.env:1: something follows",
		"A=\"a\nb\" hunter2":                     "secrets.env:2: something follows",
		"A=1\nA=hunter2":                         "secrets.env:2: A is there already",
		"hunter 2=1":                             "secrets.env:1: what is before =",
		"=hunter2":                               "secrets.env:1: what is before =",
		"A=\xffhunter2":                          "no UTF-8",
		"A=\x00hunter2":                          "no UTF-8",
		"A=hunter2" + strings.Repeat("x", 1<<20): "more than 1048576 bytes",
		strings.Repeat("x", 257) + "=hunter2":    "up to 256 bytes",
	} {
		_, err := Parse([]byte(text))
		if quipu.CodeOf(err) != quipu.CodeManifest || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%.30q: %v, want %s", text, err, want)
		}
	}
	var many strings.Builder
	for i := range Max + 1 {
		fmt.Fprintf(&many, "A%d=1\n", i)
	}
	if _, err := Parse([]byte(many.String())); err == nil || !strings.Contains(err.Error(), "secrets.env:1001: there are more than 1000") {
		t.Error(err)
	}
}

func TestASetIsNotPrintedByAccident(t *testing.T) {
	s, err := Parse([]byte("A=hunter2\nB=2"))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "set", s, "in", struct{ S Set }{s})
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "set", s)
	fmt.Fprintf(&out, "%v %+v %#v %s %q %x %d", s, s, s, s, s, s, s)
	if err := json.NewEncoder(&out).Encode(map[string]any{"s": s}); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "hunter2") || strings.Contains(out.String(), "68756e74") || !strings.Contains(out.String(), "2 secrets") {
		t.Error(out.String())
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("export A=\"b\\n\"\n#c\nD='e'"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := Parse(text)
		if err != nil {
			return
		}
		for _, n := range s.Names() { // what was read can be written and read again
			quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s.values[n])
			again, err := Parse([]byte(n + "=\"" + quoted + "\""))
			if err != nil || again.values[n] != s.values[n] {
				t.Fatalf("%q: %v", n, err)
			}
		}
	})
}
