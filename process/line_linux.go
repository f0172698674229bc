package process

import "syscall"

// lineType keeps packets apart, so that a file belongs to its line.
const lineType = syscall.SOCK_SEQPACKET
