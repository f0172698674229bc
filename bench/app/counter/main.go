// Counter adds one to the key in the path, through Dapr's HTTP API for state.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
)

var state = "http://127.0.0.1:" + os.Getenv("DAPR_HTTP_PORT") + "/v1.0/state/shared"

func main() {
	http.DefaultTransport.(*http.Transport).MaxIdleConnsPerHost = 128
	http.HandleFunc("/count/{key}", handle)
	http.HandleFunc("/counts/{key}", handle)
	network, address := "unix", os.Getenv("QUIPU_SOCKET")
	if address == "" {
		network, address = "tcp", "127.0.0.1:"+os.Getenv("PORT")
	}
	l, err := net.Listen(network, address)
	if err == nil {
		err = http.Serve(l, nil)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func handle(w http.ResponseWriter, r *http.Request) {
	n, err := add("bench-"+r.PathValue("key"), r.Header.Get("Quipu-Call-Id"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprintln(w, n)
}

func add(key, call string) (int, error) {
	text, err := send("GET", "/"+key, "", call)
	if err != nil {
		return 0, err
	}
	n := 0
	if text != "" {
		if n, err = strconv.Atoi(text); err != nil {
			return 0, err
		}
	}
	n++
	_, err = send("POST", "", fmt.Sprintf(`[{"key":%q,"value":%d}]`, key, n), call)
	return n, err
}

// send makes one request; call says which of the calls under way it belongs to.
func send(method, path, body, call string) (string, error) {
	r, err := http.NewRequest(method, state+path, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("dapr-api-token", os.Getenv("DAPR_API_TOKEN"))
	r.Header.Set("Quipu-Call-Id", call)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, answer)
	}
	return string(answer), err
}
