// Package jwks reads sets of keys in the form of RFC 7517, from a setting, a file or the web, and reads them again when they may
// have changed.
//
// A set that was read once stays in use while a newer one cannot be had. Keys are in no error.
package jwks

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/quipu-run/quipu/internal/component"
)

// Defaults and limits of a source.
const (
	TimeoutDefault = 30 * time.Second // of a request
	RefreshDefault = 10 * time.Minute
	bytesMax       = 1 << 20
)

// Source is where a set comes from.
type Source struct {
	host    component.Host
	url     string
	file    string
	timeout time.Duration
	refresh time.Duration

	mu      sync.Mutex // guards the fields below
	set     jwk.Set
	read    time.Time // the last attempt
	reading bool
	changed time.Time // of the file, when it was read
	size    int64
}

// Open reads a set: where is its address on the web, the path of a file, or the set itself, which may be in base64. A set on the
// web is read again after refresh at the earliest; 0 means the defaults.
func Open(ctx context.Context, h component.Host, where string, timeout, refresh time.Duration) (*Source, error) {
	s := &Source{host: h, timeout: timeout, refresh: refresh}
	if s.timeout < time.Millisecond {
		s.timeout = TimeoutDefault
	}
	if s.refresh < time.Second {
		s.refresh = RefreshDefault
	}
	var err error
	info, statErr := os.Stat(h.Path(where))
	switch {
	case strings.HasPrefix(where, "https://") || strings.HasPrefix(where, "http://"):
		s.url = where
		s.read = h.Clock.Now()
		s.set, err = s.fetch(ctx)
	case statErr == nil && info.Mode().IsRegular():
		s.file = where
		err = s.reload()
	default:
		if s.set, err = parse(decoded(where)); err != nil {
			err = errors.New("no address, no file and no set of keys")
		}
	}
	return s, err
}

// decoded takes base64 off, if there is any.
func decoded(text string) []byte {
	if plain, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "=")); err == nil {
		return plain
	}
	return []byte(text)
}

// parse reads a set, or one key as a set.
func parse(text []byte) (jwk.Set, error) {
	set, err := jwk.Parse(text)
	if err != nil {
		return nil, errors.New("no set of keys in JSON")
	}
	return set, nil
}

// Set is the newest set there is.
func (s *Source) Set(ctx context.Context) (jwk.Set, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.file != "":
		return s.set, s.reload()
	case s.url != "" && !s.reading && s.host.Clock.Now().Sub(s.read) >= s.refresh:
		s.reading = true
		s.mu.Unlock()
		set, err := s.fetch(ctx) // meanwhile others use the old one
		s.mu.Lock()
		s.reading, s.read = false, s.host.Clock.Now()
		if err == nil {
			s.set = set
		}
	}
	return s.set, nil
}

// reload reads a file again if it has changed.
func (s *Source) reload() error {
	info, err := os.Stat(s.host.Path(s.file))
	if err != nil {
		return err
	}
	if s.set != nil && info.ModTime().Equal(s.changed) && info.Size() == s.size {
		return nil
	}
	text, err := s.host.ReadFile(s.file, bytesMax)
	if err != nil {
		return err
	}
	set, err := parse(text)
	if err != nil {
		return fmt.Errorf("%s: %w", s.file, err)
	}
	s.set, s.changed, s.size = set, info.ModTime(), info.Size()
	return nil
}

func (s *Source) fetch(ctx context.Context) (jwk.Set, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	text, err := Get(ctx, s.host.Client, s.url)
	if err != nil {
		return nil, err
	}
	set, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.url, err)
	}
	return set, nil
}

// Get reads a document of bounded size from the web. client may be nil.
func Get(ctx context.Context, client *http.Client, url string) ([]byte, error) {
	if client == nil {
		client = http.DefaultClient
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered with status %d", url, response.StatusCode)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, bytesMax+1))
	if err == nil && len(text) > bytesMax {
		err = fmt.Errorf("%s has more than %d bytes", url, bytesMax)
	}
	return text, err
}
