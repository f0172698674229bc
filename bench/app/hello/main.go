// Hello answers every request with one line.
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
)

func main() {
	network, address := "unix", os.Getenv("QUIPU_SOCKET")
	if address == "" {
		network, address = "tcp", "127.0.0.1:"+os.Getenv("PORT")
	}
	l, err := net.Listen(network, address)
	if err == nil {
		err = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintln(w, "hello")
		}))
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
