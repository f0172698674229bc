package patterns

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// shop is the example, on a node, beside its bank.
type shop struct {
	*node
	bank string // its URL
}

func openShop(t *testing.T) *shop {
	t.Helper()
	needs(t, "node")
	app := example(t, "shop")
	bank := runBank(t, filepath.Join(app, "bank.js"))
	edit(t, filepath.Join(app, "quipu.yaml"), "http://127.0.0.1:9090", bank)
	return &shop{start(t, app), bank}
}

// runBank runs the bank until the test ends, and answers where it listens, which is its first word.
func runBank(t *testing.T, script string) string {
	t.Helper()
	cmd := exec.Command("node", script)
	cmd.Env = append(cmd.Environ(), "PORT=0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the bank does not open: %v", err)
	}
	return "http://127.0.0.1:" + strings.TrimSpace(line)
}

// user registers one and logs in; the answer is the header that shows who it is.
func (s *shop) user(name string) []string {
	s.t.Helper()
	body := fmt.Sprintf(`{"name": %q, "password": "knots"}`, name)
	want[map[string]string](s.t, s.send("user-"+name, "POST", "/users", body))
	token := want[map[string]string](s.t, s.send("login-"+name, "POST", "/login", body))["token"]
	return []string{"Authorization", "Bearer " + token}
}

// sign makes a token with a key, as the shop does with its own.
func sign(key, user string, until time.Time) []string {
	text := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"user":%q,"until":%d}`, user, until.Unix()))
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(text))
	return []string{"Authorization", "Bearer " + text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))}
}

// key is TOKEN_KEY of the example's secrets.env.
var key = strings.Repeat("0", 64)

func TestShopRefusesWhoIsNobodyAndWhoIsTooFast(t *testing.T) {
	t.Parallel()
	s := openShop(t)
	ada := s.user("ada")
	for _, c := range []struct {
		what   string
		status int
		answer answer
	}{
		{"a name that is taken", 409, s.ask("POST", "/users", `{"name": "ada", "password": "x"}`)},
		{"a wrong password", 401, s.ask("POST", "/login", `{"name": "ada", "password": "x"}`)},
		{"no token", 401, s.ask("GET", "/cart", "")},
		{"a forged token", 401, s.ask("GET", "/cart", "", sign("guess", "ada", time.Now().Add(time.Hour))...)},
		{"an expired token", 401, s.ask("GET", "/cart", "", sign(key, "ada", time.Now().Add(-time.Second))...)},
		{"a token as the shop makes them", 200, s.ask("GET", "/cart", "", sign(key, "ada", time.Now().Add(time.Hour))...)},
		{"the status of no order", 404, s.ask("GET", "/orders/x/events", "", ada...)},
		{"an order of nothing", 400, s.ask("POST", "/orders", "", ada...)},
		{"what is not sold", 400, s.ask("PUT", "/cart", `{"article": "toString", "pieces": 1}`, ada...)},
		{"a request that is not JSON", 400, s.ask("PUT", "/cart", "tea", ada...)},
	} {
		if c.answer.status != c.status {
			t.Errorf("%s: %d %s, want %d", c.what, c.answer.status, c.answer.body, c.status)
		}
	}
	s.wantLimit(ada)
}

// wantLimit sends more requests at once than the shop allows: 20 in a window of 10 seconds.
func (s *shop) wantLimit(user []string) {
	s.t.Helper()
	var mu sync.Mutex // guards statuses
	statuses := map[int]int{}
	window := func() int64 { return time.Now().Unix() / 10 }
	first := window()
	inParallel(70, func(int) {
		a := s.ask("PUT", "/cart", `{"article": "tea", "pieces": 1}`, user...)
		mu.Lock()
		defer mu.Unlock()
		statuses[a.status]++
		if a.status == http.StatusTooManyRequests && a.header.Get("Retry-After") == "" {
			s.t.Error("429 without Retry-After")
		}
	})
	windows := int(window()-first) + 1
	allowed, refused := statuses[http.StatusOK], statuses[http.StatusTooManyRequests]
	if allowed < 20 || allowed > 20*windows || allowed+refused != 70 {
		s.t.Errorf("in %d windows of 20 requests: %v", windows, statuses)
	}
}

type placed struct {
	Order string `json:"order"`
	Cents int    `json:"cents"`
}

// The bank refuses, breaks off and answers too late, and functions and node are killed. Each order is charged once, the
// declined ones never, and who follows an order sees each step once, whatever breaks.
func TestShopOrdersArePaidOnce(t *testing.T) {
	t.Parallel()
	const customers = 15
	s := openShop(t)
	killing := s.chaos(random(t))
	orders := make([]placed, customers)
	seen := make([][]string, customers)
	inParallel(customers, func(i int) {
		name := fmt.Sprint("customer-", i)
		user := s.user(name)
		article := "tea"
		if i%5 == 0 {
			article = "quipu" // more than the bank lends
		}
		s.send("cart-"+name, "PUT", "/cart", fmt.Sprintf(`{"article": %q, "pieces": %d}`, article, 1+i), user...)
		orders[i] = want[placed](t, s.send("order-"+name, "POST", "/orders", "", user...))
		seen[i] = s.follow(orders[i].Order, strings.TrimPrefix(user[1], "Bearer "))
	})
	killing.end()

	var bank struct {
		Requests int
		Charges  map[string]struct{ Cents int }
	}
	if err := json.Unmarshal([]byte(fetch(t, s.bank)), &bank); err != nil {
		t.Fatal(err)
	}
	paid := 0
	for i, o := range orders {
		wants, cents := "placed paid sent", 450*(1+i)
		if i%5 == 0 {
			wants, cents = "placed declined", 0
		} else {
			paid++
		}
		if got := strings.Join(seen[i], " "); got != wants {
			t.Errorf("order %d was seen as %q, want %q", i, got, wants)
		}
		if got := bank.Charges[o.Order].Cents; got != cents {
			t.Errorf("order %d is charged %d cents, want %d", i, got, cents)
		}
	}
	t.Logf("the bank was asked %d times for %d charges", bank.Requests, len(bank.Charges))
	if len(bank.Charges) != paid || bank.Requests <= customers {
		t.Errorf("%d charges by %d requests, want one for each of %d paid orders, and trouble", len(bank.Charges), bank.Requests, paid)
	}
}

func fetch(t *testing.T, url string) string {
	t.Helper()
	resp, err := web.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var b strings.Builder
	if _, err := bufio.NewReader(resp.Body).WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// follow does as a browser's EventSource does: it comes back when the connection breaks, and says what it saw last, until
// the answer is 204. It hangs up by itself after the first event, so that there is something to come back from.
func (s *shop) follow(order, token string) (seen []string) {
	last := ""
	tick := time.NewTicker(20 * time.Millisecond) // a browser waits longer before it comes back
	defer tick.Stop()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-tick.C {
		some, id, ended := s.listen(order, token, last, len(seen) == 0)
		seen = append(seen, some...)
		if id != "" {
			last = id
		}
		if ended {
			return seen
		}
	}
	s.t.Errorf("order %s does not come to an end: %q", order, seen)
	return seen
}

// listen reads one connection's events.
func (s *shop) listen(order, token, last string, hangUp bool) (seen []string, id string, ended bool) {
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", "http://"+s.http+"/orders/"+order+"/events?token="+token, nil)
	if err != nil {
		s.t.Error(err)
		return nil, "", true
	}
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, "", false // the node is away
	}
	defer resp.Body.Close()
	next := ""
	for lines := bufio.NewScanner(resp.Body); resp.StatusCode == http.StatusOK && lines.Scan(); {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		switch field {
		case "id":
			next = value
		case "data":
			seen, id = append(seen, value), next
			if hangUp {
				return seen, id, false
			}
		}
	}
	return seen, id, resp.StatusCode == http.StatusNoContent
}
