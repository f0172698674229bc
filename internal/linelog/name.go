package linelog

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/quipu-run/quipu"
)

const (
	suffix       = ".log"
	stemBytesMax = 200 // file systems allow 255, with number and suffix
)

// escape makes a file name of any function name: everything but small letters, digits, - and _ becomes %XX. So
// there is no dot in it, no path, and no two names that a file system without capitals confuses.
func escape(function string) string {
	var b strings.Builder
	for _, c := range []byte(function) {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02x", c)
		}
	}
	return b.String()
}

func checkName(function string) error {
	if function == "" || len(escape(function)) > stemBytesMax {
		return &quipu.Error{
			Code: quipu.CodeUsage, Op: "logs",
			Text: fmt.Sprintf("function name %.80q is empty or too long to name a file", function),
		}
	}
	return nil
}

// parseName is the inverse of the name of a file; false if it is none of ours.
func parseName(name string) (function string, number int, ok bool) {
	stem, rest, _ := strings.Cut(name, ".")
	digits, found := strings.CutSuffix(rest, suffix)
	number, err := strconv.Atoi(digits)
	if !found || err != nil || number < 1 || len(digits) < 6 {
		return "", 0, false
	}
	function, err = url.PathUnescape(stem)
	return function, number, err == nil && escape(function) == stem && function != ""
}
