// Package sandbox decides what stands between a function and the machine: it turns a wish into the steps that package lifeline's
// helper carries out.
//
// Each layer stops what the others may let through:
//
//	user          ids that own nothing on the machine, and no rights over it
//	mount         a root of its own: programs and libraries read-only, its source read-only, an empty /tmp of bounded size
//	pid           it sees, and signals, only what it started
//	ipc, uts      no shared memory, no host name of others
//	net           a loopback of its own; on it are the doors of its instance, and nothing else
//	landlock      the same files once more, by path, and no signals to processes outside
//	seccomp       no system calls that functions do not need: mounts, namespaces, tracing, modules, keys, BPF, …
//	capabilities  none, and no way to any; no-new-privileges
//	cgroup        memory, processor and number of processes are bounded together (package cgroup)
//	rlimits       files, their size, processes, core dumps; memory where there is no cgroup
//
// What can be had depends on the kernel and on who runs the node; Machine says it. With a layer missing the others stay. The
// order of construction, and why it is safe that a helper with more rights lives beside the function, is told in
// docs/internals/sandbox.md.
package sandbox
