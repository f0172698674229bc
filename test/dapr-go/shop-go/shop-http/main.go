// Program shop-http is the shop over HTTP.
package main

import (
	"log"
	"net/http"
	"os"

	"dapr-go/shop"

	daprd "github.com/dapr/go-sdk/service/http"
)

func main() {
	if err := shop.Serve("shop-http", daprd.NewService("127.0.0.1:"+os.Getenv("PORT"))); err != nil && err != http.ErrServerClosed {
		log.Fatal(err)
	}
}
