package middleware

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/quipu-run/quipu/internal/component"
	yaml "go.yaml.in/yaml/v3"
)

// aliasesMax bounds the routes of one step.
const aliasesMax = 1000

// alias is a pattern of paths and the path that takes their place.
type alias struct {
	pattern *regexp.Regexp
	names   []string // of what is in braces; added to the query
	to      string
}

// NewRouterAlias makes a middleware.http.routeralias. Metadata: routes, an object in JSON or YAML from patterns like
// /items/{id} or /items/{id:[0-9]+} to paths; or, as it was once, the patterns themselves. The most particular pattern counts.
func NewRouterAlias(_ context.Context, _ component.Host, s component.Spec) (any, error) {
	routes := map[string]string{}
	if said := s.Metadata.Get("routes"); said != "" {
		if err := yaml.Unmarshal([]byte(said), &routes); err != nil {
			return nil, fmt.Errorf("failed to decode 'routes' property as JSON or YAML: %w", err)
		}
	} else {
		maps.Copy(routes, s.Metadata)
	}
	if len(routes) > aliasesMax {
		return nil, fmt.Errorf("there are %d routes; the most is %d", len(routes), aliasesMax)
	}
	// Longer ones first: of two that match the longer one says more. Equal ones come in order, always the same.
	patterns := slices.SortedFunc(maps.Keys(routes), func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) })
	aliases := make([]alias, len(patterns))
	for i, pattern := range patterns {
		var err error
		if aliases[i], err = newAlias(pattern, routes[pattern]); err != nil {
			return nil, fmt.Errorf("route %.100q: %w", pattern, err)
		}
	}
	return component.Middleware(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(w, rewrite(r, aliases)) })
	}), nil
}

func newAlias(pattern, to string) (alias, error) {
	if pattern == "" || to == "" {
		return alias{}, errors.New("neither a pattern nor a path may be empty")
	}
	a := alias{to: to}
	expression := strings.Builder{}
	for rest := pattern; rest != ""; {
		literal, from, found := strings.Cut(rest, "{")
		expression.WriteString(regexp.QuoteMeta(literal))
		if !found {
			break
		}
		inside, after, closed := cutBrace(from)
		if !closed {
			return a, errors.New("a brace is not closed")
		}
		name, class, said := strings.Cut(inside, ":")
		if !said {
			class = "[^/]+"
		}
		if name == "" || class == "" {
			return a, errors.New("what is in braces has no name, or no expression")
		}
		if _, err := regexp.Compile(class); err != nil {
			return a, err
		}
		fmt.Fprintf(&expression, "(?P<v%d>%s)", len(a.names), class)
		a.names = append(a.names, name)
		rest = after
	}
	var err error
	a.pattern, err = regexp.Compile("^" + expression.String() + "$")
	return a, err
}

// cutBrace finds the brace that closes the one before text.
func cutBrace(text string) (inside, after string, ok bool) {
	for i, depth := 0, 1; i < len(text); i++ {
		switch text[i] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return text[:i], text[i+1:], true
			}
		}
	}
	return "", "", false
}

// rewrite answers the request itself if no alias is meant.
func rewrite(r *http.Request, aliases []alias) *http.Request {
	for _, a := range aliases {
		found := a.pattern.FindStringSubmatch(r.URL.Path)
		if found == nil {
			continue
		}
		url := *r.URL
		url.Path, url.RawPath = a.to, ""
		if len(a.names) > 0 {
			query := url.Query()
			for i, name := range a.names {
				query.Add(name, found[a.pattern.SubexpIndex(fmt.Sprintf("v%d", i))])
			}
			url.RawQuery = query.Encode()
		}
		changed := r.WithContext(r.Context())
		changed.URL = &url
		changed.RequestURI = requestURI(changed)
		return changed
	}
	return r
}
