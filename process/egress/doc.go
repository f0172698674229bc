// Package egress is an instance's way out of its network namespace, by policy.
//
// An instance lives in a network namespace of its own in which only lo is up. The namespace is the
// wall; this package is one door in it. The instance's seccomp filter (Notify) hands every connect(2) to
// the node, which holds the filter's listener. The node reads the address once, decides on its own copy,
// opens a socket in its own namespace, connects that, and puts it in the place of the instance's
// descriptor. No packet is copied, no proxy is configured, and a connection that is up costs nothing more.
//
//	instance: connect(5, 198.51.100.7:443)
//	    │ SECCOMP_RET_USER_NOTIF
//	    ▼
//	node: read the address ─► Policy ─► socket, locked to that peer ─► connect ─► SETFD 5 ─► answer
//
// # Promises
//
//   - Where the policy says no, connect fails with EACCES, and the refused function is called so that
//     somebody can be told why.
//   - What is decided is what is done. Nothing depends on memory or descriptors that the instance can
//     change meanwhile: the address is read once and the copy is used. Where the kernel is told to carry on
//     with the original call, that acts in the instance's namespace, or on a socket with a lock.
//   - A socket that was let out takes packets from the approved address and port only (if CanLock; see
//     Locks). So an instance can neither listen outside with it, nor take it to another peer.
//   - A server inside comes first: TCP to loopback is tried inside, and goes to the machine's loopback only
//     if nobody listens inside (ECONNREFUSED) and the policy allows it.
//   - Blocking stays blocking (with SO_SNDTIMEO), O_NONBLOCK and FD_CLOEXEC stay as they were, and so do
//     the socket options that programs set before they connect (the list is in carry_linux.go).
//   - A Supervisor ends by itself with the last process that has the filter. At most connectsWaitingMax blocking
//     connects of an instance are under way; more wait in the kernel. An idle one holds no OS thread.
//
// Nothing here outlives the node: there is nothing to recover after a crash. When the node dies the
// listener closes and a connect that waits, or comes later, fails with ENOSYS; connections that are up stay up.
//
// # Locks
//
// An instance holds a real socket of the node's namespace, and a socket whose connect failed is as new: the kernel
// would connect it anywhere (MSG_FASTOPEN, or a connect that is told to carry on for one descriptor and
// finds another in its place), and listen on it. So each gets a classic BPF filter that drops whatever comes from
// another address or port than its peer's, and SO_LOCK_FILTER, after which nobody can remove it: no handshake with
// anybody else ends, in either direction, whatever the instance does.
//
// Some kernels keep such filters from processes without CAP_NET_ADMIN over the network namespace, so from a
// node that an ordinary user runs. CanLock tells. Without locks the policy rests on the filter: MSG_FASTOPEN is refused
// and listen(2) is supervised too (Notify does both), and carried out by the node on its copy, whose credentials
// the clients of a listening Unix socket then see in SO_PEERCRED. One way around stays: a race between two
// threads, in which a connect to a Unix socket carries on with a TCP socket that was let out. A sandbox
// closes it with Landlock (LANDLOCK_ACCESS_NET_CONNECT_TCP handled and no port allowed, Linux 6.7), which costs nothing:
// all TCP connects that can succeed are made by the node, those inside too. The same race with UDP is closed by
// Policy.NoDatagrams, or by LANDLOCK_ACCESS_NET_CONNECT_SEND_UDP of kernels that have it, at the price of UDP inside.
//
// # What it does not do
//
//   - UDP leaves only through connect(2), as resolvers use it. sendto and sendmsg with an address on a socket
//     that never connected stay in the namespace and find no route; QUIC clients fall back to TCP. UDP
//     to loopback stays inside, except to a nameserver of the machine at port 53, because nobody can ask
//     whether someone inside listens.
//   - A UDP socket that was let out can *send* datagrams to other addresses (sendto with an address), as the
//     kernels of today have no unprivileged means against that; with a lock it never receives an answer from them, nor can it be
//     connected to them. Where even that is too much, Policy.NoDatagrams keeps all UDP in; names then
//     resolve over TCP with "options use-vc" in the instance's resolv.conf (glibc, Go).
//   - The same holds for the SYN of a TCP connect that the kernel was made to send elsewhere: it leaves, its answer
//     is dropped. Notify refuses MSG_FASTOPEN so that it carries no data, and io_uring, whose
//     requests no seccomp filter sees.
//   - Only the descriptor of the call is replaced: a duplicate made before (dup, fork) stays the socket inside.
//     So does a registration with epoll made before connect: the kernel drops it with the old socket.
//     Go, libuv, asyncio, mio and the JDK register after connect.
//   - A bind before connect (a fixed source address or port) counts inside only. getsockname tells the node's
//     own address, as it would without a sandbox, and ioctls on the socket show the names of the node's interfaces.
//   - connect with AF_UNSPEC leaves a UDP socket that was let out as it is, and answers success: a next connect
//     replaces it anyhow. Resolvers that sort addresses (RFC 6724) do this.
//   - Ping sockets, SCTP and raw sockets stay in the namespace. MPTCP goes out as TCP.
//   - Names are no matter of policy: it knows addresses and ports.
//
// # Interrupted calls
//
// The filter ought to be installed with SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (Linux 5.19). Without it
// a signal may restart a connect whose socket is in place already; it then reports EISCONN or EALREADY, as a
// restarted connect does on any Unix. With it, a blocking connect outside is not interrupted by a signal handler.
//
// # Sources
//
// seccomp_unotify(2); the idea of replacing the socket is that of bypass4netns (NTT, rootless containers).
// socket(7) and Documentation/networking/filter.rst for SO_LOCK_FILTER and loads relative to the network header.
// RFC 6890 for special addresses.
package egress
