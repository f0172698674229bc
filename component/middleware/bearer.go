package middleware

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/lestrrat-go/jwx/v2/jws"
	"github.com/lestrrat-go/jwx/v2/jwt"
	"github.com/quipu-run/quipu/internal/component"
	"github.com/quipu-run/quipu/internal/jwks"
)

const (
	clockSkew     = 5 * time.Minute // that is forgiven
	tokenBytesMax = 64 << 10
	tokenBytesMin = 10
)

// NewBearer makes a middleware.http.bearer: who has no valid token is answered with 401. Metadata: issuer (or issuerURL), audience
// (or clientID), and jwksURL, which is found at the issuer if it is not said.
func NewBearer(ctx context.Context, h component.Host, s component.Spec) (any, error) {
	issuer, err := s.Metadata.Need("issuer", "issuerURL")
	if err != nil {
		return nil, err
	}
	audience, err := s.Metadata.Need("audience", "clientID")
	if err != nil {
		return nil, err
	}
	where := s.Metadata.Get("jwksURL")
	if where == "" {
		if where, err = keysOf(ctx, h, issuer); err != nil {
			return nil, err
		}
	}
	if !strings.HasPrefix(where, "https://") && !strings.HasPrefix(where, "http://") {
		return nil, errors.New("metadata jwksURL is no address")
	}
	keys, err := jwks.Open(ctx, h, where, 0, 0)
	if err != nil {
		return nil, fmt.Errorf("the issuer's keys: %w", err)
	}
	valid := func(r *http.Request, token string) bool {
		set, err := keys.Set(r.Context())
		if err != nil {
			return false
		}
		_, err = jwt.Parse([]byte(token), jwt.WithContext(r.Context()), jwt.WithAcceptableSkew(clockSkew), jwt.WithClock(jwt.ClockFunc(h.Clock.Now)),
			jwt.WithKeySet(set, jws.WithInferAlgorithmFromKey(true)), jwt.WithAudience(audience), jwt.WithIssuer(issuer))
		return err == nil
	}
	return component.Middleware(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if token, ok := tokenOf(r); !ok || !valid(r, token) {
				w.Header().Set("WWW-Authenticate", "Bearer")
				refuse(w, http.StatusUnauthorized, "")
				return
			}
			next.ServeHTTP(w, r)
		})
	}), nil
}

func tokenOf(r *http.Request) (string, bool) {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	return token, ok && strings.EqualFold(scheme, "bearer") && len(token) >= tokenBytesMin && len(token) <= tokenBytesMax
}

// keysOf asks an issuer where its keys are, by OpenID Connect Discovery 1.0.
func keysOf(ctx context.Context, h component.Host, issuer string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, jwks.TimeoutDefault)
	defer cancel()
	text, err := jwks.Get(ctx, h.Client, strings.TrimSuffix(issuer, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return "", fmt.Errorf("failed to retrieve OpenID Configuration document: %w", err)
	}
	var said struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	switch err := json.Unmarshal(text, &said); {
	case err != nil:
		return "", fmt.Errorf("the OpenID Configuration document is no JSON: %w", err)
	case said.Keys == "":
		return "", errors.New("the OpenID Configuration document does not contain a 'jwks_uri'")
	case said.Issuer != issuer:
		return "", fmt.Errorf("the issuer found in the OpenID Configuration document ('%.200s') doesn't match the one provided in the component's metadata ('%.200s')", said.Issuer, issuer)
	}
	return said.Keys, nil
}
