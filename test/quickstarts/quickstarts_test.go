// Package quickstarts runs the applications of examples/dapr as their READMEs say, with the program and no other server, and looks for the
// lines that those promise.
package quickstarts

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

func TestWhatIsPublishedIsReceivedInJavaScript(t *testing.T) {
	r := start(t, "pubsub-js", tool{"node", "node_modules/@dapr/dapr", "npm install"})
	for order := 1; order <= 10; order++ {
		r.line(`== APP - checkout == Published order {"orderId":%d}`, order)
		r.line(`== APP - order-processor == Received order {"orderId":%d}`, order)
	}
	r.end()
	if got := r.count("Received order"); got != 10 {
		t.Errorf("10 orders were published, and %d received", got)
	}
}

func TestAShopInGoSellsWhatItHasAtThePriceOfTheMoment(t *testing.T) {
	r := start(t, "store-go", tool{"go", "", "go mod download"})
	r.line("== APP - checkout == Order 1 costs 10, receipt 594cd5347871")
	r.line("== APP - checkout == Order 10: sold out")
	for order := 1; order <= 8; order++ {
		r.line("== APP - stock == Order %d takes a bell: %d left", order, 8-order)
		r.line("== APP - order-processor == Order %d is saved", order)
	}
	if got := r.quipu("state", "get", "bells", "--as", "stock"); got != "0" {
		t.Errorf("%s bells are left of 8, of which all were sold", got)
	}
	if r.count("receipt") != 8 || r.count("sold out") != 2 {
		t.Error("of 10 orders, 8 should be sold")
	}
	r.quipu("config", "put", "bell.price", "12")
	r.line("== APP - order-processor == A bell costs 12")
	if got := r.invoke("order-processor", "orders", "11"); got != `{"id":11,"price":12,"left":-1,"soldOut":true}` {
		t.Errorf("after the price has changed an order is %s", got)
	}
	r.end()
}

func TestABatchInPythonIsBookedOnceAlthoughTheLedgerFailsAtFirst(t *testing.T) {
	r := start(t, "batch-python", tool{"python3", "", ""})
	r.line("== APP - ledger == Not now")
	r.line("== APP - ledger == Order 3 of Edsger is booked: 51.49 in all")
	r.line("== APP - batch == Finished the batch")
	for order, says := range map[int]string{1: "Ada pays 19.99\n", 2: "Grace pays 24.50\n", 3: "Edsger pays 7.00\n"} {
		path := filepath.Join(r.dir, "receipts", "order-"+strconv.Itoa(order)+".txt")
		if text, err := os.ReadFile(path); err != nil || string(text) != says {
			t.Errorf("the receipt of order %d is %q, %v", order, text, err)
		}
	}
	more := `{"orders":[{"id":1,"customer":"Ada","cents":1999},{"id":4,"customer":"Barbara","cents":1}]}`
	if err := os.WriteFile(filepath.Join(r.dir, "orders.json"), []byte(more), 0o600); err != nil {
		t.Fatal(err)
	}
	r.line("== APP - ledger == Order 4 of Barbara is booked: 51.50 in all")
	failed := r.count("failed") // not what the end of all cuts off
	r.end()
	if booked, refused := r.count("is booked"), r.count("Not now"); booked != 4 || refused != 2 {
		t.Errorf("4 orders were booked %d times; the ledger refused %d times instead of 2", booked, refused)
	}
	if failed != 0 {
		t.Error("the batch should not notice that the ledger failed")
	}
}
