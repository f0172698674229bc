package kv

import (
	"encoding/binary"
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
	if len(body) < 9 {
		return errOp.Error()
	}
	size, n := binary.Uvarint(body[9:])
	rest := body[9+max(n, 0):]
	if n <= 0 || size > uint64(len(rest)) {
		return errOp.Error()
	}
	e := entry{form: body[8], value: rest[size:]}
	return fmt.Sprintf("set %s, %d bytes", DescribeKey(string(rest[:size])), e.size())
}
