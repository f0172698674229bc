//go:build !linux

package process

import "syscall"

// lineType is a stream: not every system has packets here, and no files are sent.
const lineType = syscall.SOCK_STREAM
