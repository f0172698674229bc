package component

import "io"

// Close closes a store that is not on the log, if it needs it.
func (s State) Close() error { return closeForeign(s.Foreign) }

// Close closes a pub/sub that is not on the log, if it needs it.
func (p PubSub) Close() error { return closeForeign(p.Foreign) }

func closeForeign(foreign any) error {
	if closer, ok := foreign.(io.Closer); ok {
		return closer.Close()
	}
	return nil
}
