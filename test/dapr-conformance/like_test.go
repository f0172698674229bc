package conformance

import (
	"regexp"
	"strings"
)

// likeOf is a pattern of SQL: % is any text, _ any character, and \ takes the meaning of the next. prefix is what all
// matches start with.
func likeOf(pattern string) (like *regexp.Regexp, prefix string, err error) {
	var b strings.Builder
	literal, escaped := true, false
	for _, c := range pattern {
		switch {
		case !escaped && c == '\\':
			escaped = true
			continue
		case !escaped && (c == '%' || c == '_'):
			literal = false
			b.WriteString(map[rune]string{'%': ".*", '_': "."}[c])
		default:
			b.WriteString(regexp.QuoteMeta(string(c)))
			if literal {
				prefix += string(c)
			}
		}
		escaped = false
	}
	if escaped {
		return nil, "", errPattern
	}
	like, err = regexp.Compile("(?s)^" + b.String() + "$")
	return like, prefix, err
}
