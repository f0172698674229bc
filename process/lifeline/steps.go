package lifeline

// Steps of the helper, by which it tells what failed.
const (
	StepLoopback = iota + 1
	StepListen
	StepStage
	StepMount
	StepRoot
	StepLimits
	StepUser
	StepLandlock
	StepCapabilities
	StepSeccomp
	StepExec
	stepMountFirst = 100 // and more is the number of the mount
)

// StepName is for messages.
func StepName(step int, mounts []Mount) string {
	if n := step - stepMountFirst; n >= 0 && n < len(mounts) {
		return "put " + mounts[n].Target + " in its root"
	}
	return map[int]string{
		StepLoopback: "bring up its loopback", StepListen: "listen within its walls", StepStage: "make its root",
		StepRoot: "change its root", StepLimits: "set its limits", StepUser: "change its user", StepLandlock: "restrict its files",
		StepCapabilities: "give up capabilities", StepSeccomp: "filter its system calls", StepExec: "run its program",
	}[step]
}
