package process

import (
	"errors"
	"os"
	"time"

	"github.com/quipu-run/quipu"
)

var _ quipu.CPUMeter = (*Instance)(nil)

var errNotNoted = errors.New("the process of the instance is not known yet")

// CPUTime is what the processes of the instance have taken of the processors: its helper and its start included, where there
// is a control group that counts them. Without one it is the function's own process, and at the end what it has started and
// waited for, too.
func (i *Instance) CPUTime() (time.Duration, error) {
	i.spending.Lock()
	defer i.spending.Unlock()
	if i.over {
		return i.seen, nil
	}
	if spent, err := i.groupTime(); err == nil {
		return spent, nil
	}
	select {
	case <-i.noted:
	default:
		return 0, errNotNoted
	}
	if i.pid <= 0 { // it is gone; 0 would be ourselves
		return i.seen, nil
	}
	spent, err := processTime(i.pid)
	i.seen = max(i.seen, spent)
	return i.seen, err
}

// spend settles CPUTime at the end, before the group goes. The state is that of the helper, and of what it has waited for.
func (i *Instance) spend(helper *os.ProcessState) {
	i.spending.Lock()
	defer i.spending.Unlock()
	i.over = true
	if spent, err := i.groupTime(); err == nil {
		i.seen = spent
	} else if helper != nil {
		i.seen = max(i.seen, helper.UserTime()+helper.SystemTime())
	}
}
