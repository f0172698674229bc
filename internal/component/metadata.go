package component

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Metadata are the settings of a component. Names are found in any case, as in Dapr.
type Metadata map[string]string

// Get is the value under one of several names, "" if there is none.
func (m Metadata) Get(names ...string) string {
	for _, name := range names {
		if value := m[name]; value != "" {
			return value
		}
		for key, value := range m {
			if value != "" && strings.EqualFold(key, name) {
				return value
			}
		}
	}
	return ""
}

// Need is Get of what must be there.
func (m Metadata) Need(names ...string) (string, error) {
	if value := m.Get(names...); value != "" {
		return value, nil
	}
	return "", fmt.Errorf("metadata %s is required", names[0])
}

// Bool reads a flag, as strconv does and yes, y, on, no, n, off; or answers what it is otherwise.
func (m Metadata) Bool(otherwise bool, names ...string) (bool, error) {
	value := m.Get(names...)
	switch strings.ToLower(value) {
	case "":
		return otherwise, nil
	case "yes", "y", "on":
		return true, nil
	case "no", "n", "off":
		return false, nil
	}
	flag, err := strconv.ParseBool(value)
	if err != nil {
		return otherwise, fmt.Errorf("metadata %s is %.40q, but must be true or false", names[0], value)
	}
	return flag, nil
}

// Int reads a whole number between two, or answers what it is otherwise.
func (m Metadata) Int(otherwise, least, most int, names ...string) (int, error) {
	value := m.Get(names...)
	if value == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < least || n > most {
		return otherwise, fmt.Errorf("metadata %s is %.40q, but must be a number from %d to %d", names[0], value, least, most)
	}
	return n, nil
}

// Duration reads one like 1m30s, or whole seconds, or answers what it is otherwise.
func (m Metadata) Duration(otherwise time.Duration, names ...string) (time.Duration, error) {
	value := m.Get(names...)
	if value == "" {
		return otherwise, nil
	}
	d, err := time.ParseDuration(value)
	if n, intErr := strconv.ParseInt(value, 10, 32); intErr == nil {
		d, err = time.Duration(n)*time.Second, nil
	}
	if err != nil || d < 0 {
		return otherwise, fmt.Errorf("metadata %s is %.40q, but must be a duration like 30s", names[0], value)
	}
	return d, nil
}
