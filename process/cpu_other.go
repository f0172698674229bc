//go:build !linux

package process

import (
	"errors"
	"time"
)

func (i *Instance) groupTime() (time.Duration, error) { return 0, errors.ErrUnsupported }
func processTime(int) (time.Duration, error)          { return 0, errors.ErrUnsupported }
