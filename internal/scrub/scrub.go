// Package scrub takes out of a text what says who somebody is: addresses of mail and of the network, numbers of phones, cards,
// accounts and insurance, postal addresses. Each is replaced by its kind, like <EMAIL_ADDRESS>, with the names that Dapr uses.
//
// It looks at form alone, so it takes out too much rather than too little, and still misses what has no form: names, for one.
// Time is linear in the text.
package scrub

import (
	"math/big"
	"net/netip"
	"regexp"
	"strings"
)

// kind is one form. What fits the pattern is checked where a form can be.
type kind struct {
	name    string
	pattern *regexp.Regexp
	check   func(string) bool
}

// kinds are in order: what an earlier one took is not seen by a later one.
var kinds = []kind{
	{"EMAIL_ADDRESS", regexp.MustCompile(`[\p{L}\p{N}._%+'-]+@(?:[\p{L}\p{N}](?:[\p{L}\p{N}-]*[\p{L}\p{N}])?\.)+\p{L}{2,}`), nil},
	{"IBAN", regexp.MustCompile(`\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b`), isIBAN},
	{"MAC_ADDRESS", regexp.MustCompile(`\b(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}\b`), nil},
	{"IP", regexp.MustCompile(`[0-9A-Fa-f]*:[0-9A-Fa-f:]*[0-9][0-9A-Fa-f:.]*|\b[0-9]{1,3}(?:\.[0-9]{1,3}){3}\b`), isIP},
	{"CREDIT_CARD", regexp.MustCompile(`\b[0-9](?:[ -]?[0-9]){12,18}\b`), isCard},
	{"SSN", regexp.MustCompile(`\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b`), nil},
	{"ZIP_CODE", regexp.MustCompile(`\b[0-9]{5}-[0-9]{4}\b`), nil},
	{"PHONE_NUMBER", regexp.MustCompile(`\+[0-9](?:[ ().-]{0,2}[0-9]){6,14}\b`), nil},
	{"PHONE_NUMBER", regexp.MustCompile(`(?:\(0?[0-9]{2,4}\)|\b[0-9]{2,4})[ .-]?[0-9]{3,4}[ .-]?[0-9]{3,5}\b`), isPhone},
	{"PO_BOX", regexp.MustCompile(`(?i)\bP\.? ?O\.? ?Box [0-9]+`), nil},
	{"STREET_ADDRESS", regexp.MustCompile(`(?i)\b[0-9]{1,5} (?:[\p{L}.'-]+ ){1,4}(?:street|st|avenue|ave|road|rd|highway|hwy|square|sq|trail|drive|dr|court|ct|parkway|pkwy|circle|boulevard|blvd|lane|ln)\b\.?`), nil},
	{"ZIP_CODE", regexp.MustCompile(`\b[0-9]{5}\b`), nil},
}

// Text is a text without what says who somebody is.
func Text(text string) string {
	for _, k := range kinds {
		text = k.pattern.ReplaceAllStringFunc(text, func(found string) string {
			if k.check != nil && !k.check(found) {
				return found
			}
			return "<" + k.name + ">"
		})
	}
	return text
}

// isIP takes a dot at the end for that of a sentence.
func isIP(text string) bool {
	_, err := netip.ParseAddr(strings.TrimRight(text, ".:"))
	return err == nil
}

// isPhone wants as many digits as a number with its area has.
func isPhone(text string) bool {
	n := len(digits(text))
	return n >= 9 && n <= 13
}

func digits(text string) string {
	return strings.Map(func(r rune) rune {
		if r < '0' || r > '9' {
			return -1
		}
		return r
	}, text)
}

// isCard is the check of ISO/IEC 7812-1: every second digit from the right is doubled, and all add up to tens.
func isCard(text string) bool {
	d := digits(text)
	sum := 0
	for i := range len(d) {
		n := int(d[len(d)-1-i] - '0')
		if i%2 == 1 {
			n = n*2 - n/5*9
		}
		sum += n
	}
	return sum%10 == 0
}

// isIBAN is the check of ISO 13616: turned round, with letters as numbers, it is 1 modulo 97.
func isIBAN(text string) bool {
	text = strings.ReplaceAll(text, " ", "")
	number := ""
	for _, r := range text[4:] + text[:4] {
		if r >= 'A' {
			number += big.NewInt(int64(r - 'A' + 10)).String()
		} else {
			number += string(r)
		}
	}
	n, ok := new(big.Int).SetString(number, 10)
	return ok && n.Mod(n, big.NewInt(97)).Int64() == 1
}
