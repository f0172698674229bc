package server

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
)

// developing runs quipu dev on an application of one function in Python, reached at /f/.
func developing(t *testing.T, code string) (k *killable, save func(code string)) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "app")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("lib.py", lib)
	write("f.py", code)
	write("quipu.yaml", function("f", "f.py", "python"))
	k = spawn(t, filepath.Join(dir, ".quipu"), "dev", dir)
	return k, func(code string) { write("f.py", code) }
}

// says is a function that answers with text.
func says(text string) string {
	return "import lib\nlib.serve(lambda r: r.answer(200, \"" + text + "\"))\n"
}

const browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

// Who has just started looks at the address, not at the terminal: what is wrong is there, too.
func TestDevShowsWhatFailedWhereItsUserLooksUntilASaveHealsIt(t *testing.T) {
	k, save := developing(t, "import nothing_of_that_name # <script>\n")
	first := k.get("/f/") // waits for the first deploy
	if first.status != 500 || first.code() != quipu.CodeRefused || !strings.Contains(first.body, "No module named 'nothing_of_that_name'") {
		t.Fatalf("the first deploy failed, and the route says %d %s", first.status, first.body)
	}
	page := k.get("/f/", "Accept", browser)
	if page.status != 500 || page.header.Get("Content-Type") != "text/html; charset=utf-8" ||
		!strings.Contains(page.body, "No module named &#39;nothing_of_that_name&#39;") {
		t.Fatalf("a browser sees %d %v %s", page.status, page.header, page.body)
	}
	if strings.Contains(page.body, "<script>") {
		t.Error("what the function printed is not escaped")
	}
	save(says("well"))
	eventually(t, "a good save heals it", func() bool { return k.get("/f/").body == "well" })
	save("this is no Python\n")
	eventually(t, "a bad save shows", func() bool { return k.get("/f/").code() == quipu.CodeRefused })
	if k.get("/-/v1/functions/f").status != 200 {
		t.Error("the admin API is in the way of the fault")
	}
	save(says("well again"))
	eventually(t, "the next good save heals it", func() bool { return k.get("/f/").body == "well again" })
	if err := k.term(); err != nil {
		t.Errorf("exit: %v", err)
	}
	for _, part := range []string{"not deployed after", "No module named", "deployed f at revision 1", "/f/", "after the save"} {
		if !strings.Contains(k.output.String(), part) {
			t.Errorf("the terminal has no %q:\n%s", part, k.output.String())
		}
	}
}

func TestNoRequestIsLostWhileDevReloads(t *testing.T) {
	k, save := developing(t, says("0"))
	k.get("/f/").want(t, 200, "0")
	for _, text := range []string{"1", "2", "3"} {
		save(says(text))
		saved, asked := time.Now(), 0
		eventually(t, "the save answers", func() bool {
			asked++
			got := k.get("/f/")
			if got.status != 200 {
				t.Fatalf("request %d after the save: %d %s", asked, got.status, got.body)
			}
			return got.body == text
		})
		t.Logf("first new answer %s after the save", time.Since(saved).Round(time.Millisecond))
	}
}
