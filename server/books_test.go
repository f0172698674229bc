package server

import (
	"fmt"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
	"github.com/quipu-run/quipu/xtest"
)

// otherNamespace makes one, with something deployed in it.
func (n *node) otherNamespace() *sdk.Client {
	n.t.Helper()
	c := clientOf(n.t, n.info.HTTP, "", "other")
	if _, err := c.Deploy(n.t.Context(), "app", files{"quipu.yaml": function("f", "f.py", "python"), "f.py": keeps}.pack(n.t)); err != nil {
		n.t.Fatal(err)
	}
	return c
}

func TestRawBooksBelongToTheirNamespace(t *testing.T) {
	n := start(t)
	other := n.otherNamespace()
	ctx := t.Context()
	for i, c := range []*sdk.Client{n.client, other} {
		for _, name := range []string{"orders", "zebra"} {
			if b, err := c.CreateBook(ctx, name, quipu.BookOptions{}); err != nil || b.Name != name || b.Sync != "always" {
				t.Fatalf("create %s: %+v, %v", name, b, err)
			}
		}
		if _, err := c.AppendRecord(ctx, "orders", quipu.Draft{Data: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
	for i, c := range []*sdk.Client{n.client, other} {
		page, err := c.ReadBook(ctx, "orders", sdk.ReadRequest{})
		if err != nil || len(page.Items) != 1 || string(page.Items[0].Data) != fmt.Sprint(i) {
			t.Errorf("namespace %d reads %+v, %v", i, page, err)
		}
		books, err := c.Books(ctx)
		if err != nil || len(books) != 3 || books[0].Name != "orders" || books[1].Name != []string{"quipu/default", "quipu/other"}[i] || !books[1].Locked || books[2].Name != "zebra" {
			t.Errorf("namespace %d lists %+v, %v", i, books, err)
		}
		for _, hidden := range []string{"@other/orders", "@default/orders", "quipu/none"} {
			if _, err := c.Book(ctx, hidden); quipu.CodeOf(err) != quipu.CodeNoBook {
				t.Errorf("namespace %d finds %s: %v", i, hidden, err)
			}
		}
	}
	if _, err := n.client.CreateBook(ctx, "@other/mine", quipu.BookOptions{}); quipu.CodeOf(err) != quipu.CodeUsage {
		t.Errorf("the default namespace made a book of another: %v", err)
	}
}

func TestTheLogOfANamespaceKeepsThePromises(t *testing.T) {
	for _, namespace := range []string{DefaultNamespace, "other"} {
		t.Run(namespace, func(t *testing.T) {
			xtest.Log(t, func(*testing.T) quipu.Log {
				return ownBooks{xtest.NewModel(xtest.NewClock(time.Unix(1e9, 0))), namespace, 0}
			})
		})
	}
}

// The door checks names; this is about whoever has an id.
func TestThePlatformsBookIsReadOnlyByItsIDToo(t *testing.T) {
	log := ownBooks{Log: nil, namespace: "default", platform: 7} // nil: nothing may get through
	ctx := t.Context()
	_, appended := log.Append(ctx, 7, quipu.Draft{})
	_, batched := log.AppendBatch(ctx, 7, []quipu.Draft{{}})
	_, created := log.CreateBook(ctx, "quipu/default", quipu.BookOptions{})
	for i, err := range []error{appended, batched, created, log.SetBook(ctx, 7, quipu.BookOptions{}), log.DeleteBook(ctx, 7), log.Trim(ctx, 7, "", 1), log.SetAux(ctx, 7, 1, nil)} {
		if quipu.CodeOf(err) != quipu.CodeBookLocked {
			t.Errorf("%d: %v", i, err)
		}
	}
}

func TestTheLogTellsWhatItHolds(t *testing.T) {
	n := start(t, func(c *Config) { c.Sync = "os" })
	before, err := n.client.LogStats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, err := n.client.CreateBook(t.Context(), "orders", quipu.BookOptions{})
	if err != nil || b.Sync != "os" {
		t.Fatalf("%+v, %v", b, err)
	}
	if _, err := n.client.AppendBatch(t.Context(), "orders", make([]quipu.Draft, 5)); err != nil {
		t.Fatal(err)
	}
	after, err := n.client.LogStats(t.Context())
	if err != nil || after.Sync != "os" || after.Appended < before.Appended+5 || after.Books != before.Books+1 || after.SegmentBytes == 0 || after.Commits <= before.Commits {
		t.Errorf("before %+v, after %+v, %v", before, after, err)
	}
}
