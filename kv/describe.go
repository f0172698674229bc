package kv

import (
	"fmt"
	"strings"
)

// DescribeKey is a key of the view as people know it: store/key. An entry of the expiry index is named as such, and
// the end of a store is "".
func DescribeKey(key string) string {
	if strings.HasPrefix(key, expiryPrefix) {
		if _, name, err := parseIndex(key); err == nil && name != "" {
			return "expiry of " + DescribeKey(name)
		}
		return "expiry index"
	}
	store, name, ok := strings.Cut(strings.TrimPrefix(key, dataPrefix), "\x00")
	if !ok {
		return ""
	}
	return store + "/" + name
}

// DescribeOp is what an operation does, without the value.
func DescribeOp(op []byte) string {
	if len(op) == 0 {
		return errOp.Error()
	}
	switch body := op[1:]; op[0] {
	case opSet:
		return describeSet(body)
	case opDelete:
		return "delete " + DescribeKey(string(body))
	case opForget:
		return "forget the " + DescribeKey(string(body))
	}
	return errOp.Error()
}

func describeSet(body []byte) string {
	key, e, ok := parseSet(body)
	if !ok {
		return errOp.Error()
	}
	return fmt.Sprintf("set %s, %d bytes", DescribeKey(key), e.size())
}

// DescribeEffect is what an operation of a user does, and the value that it leaves; false for one of the platform's own.
func DescribeEffect(op []byte) (what, value string, ok bool) {
	if len(op) == 0 {
		return "", "", false
	}
	switch body := op[1:]; op[0] {
	case opSet:
		key, e, ok := parseSet(body)
		if !ok {
			return "", "", false
		}
		if e.form == inBlob {
			return "set " + DescribeKey(key), fmt.Sprintf("%d bytes with SHA-256 %x", e.size(), e.value[:min(len(e.value), 32)]), true
		}
		return "set " + DescribeKey(key), string(e.value), true
	case opDelete:
		return "delete " + DescribeKey(string(body)), "", true
	}
	return "", "", false
}
