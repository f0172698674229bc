package deploy

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
)

func (w *world) build(command string) error {
	w.t.Helper()
	_, err := w.Deploy(w.ctx, "app", pack(w.t, "quipu.yaml\n"+fn("a", "  build: [sh, -c, "+strconv.Quote(command)+"]\n"), run), quipu.DeployOptions{})
	return err
}

func (w *world) wantBuildError(err error, says ...string) {
	w.t.Helper()
	for _, s := range says {
		if quipu.CodeOf(err) != quipu.CodeBuild || !strings.Contains(err.Error(), s) {
			w.t.Errorf("%.300v, want %s with %q", err, quipu.CodeBuild, s)
		}
	}
	if left, err := filepath.Glob(filepath.Join(w.dir, "a-*")); err != nil || len(left) > 0 || w.names() != "" {
		w.t.Errorf("it left %v, %q deployed, %v", left, w.names(), err)
	}
}

func TestABuildThatHangsEndsWithAllThatItStarted(t *testing.T) {
	w := newWorld(t)
	w.built.time = 300 * time.Millisecond
	pids := filepath.Join(t.TempDir(), "pids")
	err := w.build("echo kneading; sleep 1000 & echo $! $$ > " + pids + "; sleep 1000")
	w.wantBuildError(err, "not done after 300ms", "kneading")
	text, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		ended(t, pid)
	}
}

// ended waits until a process is no more, or a zombie that somebody else has to reap.
func ended(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		stat, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
		if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) || strings.Contains(string(stat), ") Z ") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d still runs: %s", pid, stat)
		}
	}
}

func TestWhatABuildLeavesRunningEndsWithIt(t *testing.T) {
	w := newWorld(t)
	pids := filepath.Join(t.TempDir(), "pids")
	if err := w.build("sleep 1000 >/dev/null 2>&1 & echo $! > " + pids); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	ended(t, pid)
}

func TestOfAFailedBuildTheLastWordsAreTold(t *testing.T) {
	w := newWorld(t)
	err := w.build(`head -c 50000000 /dev/zero | tr '\0' x; printf '\377 no flour'; exit 3`)
	w.wantBuildError(err, "exit status 3", "\uFFFD no flour", "…xxx")
	if len(err.Error()) > 2*outputBytesKept {
		t.Errorf("the error has %d bytes", len(err.Error()))
	}
}

func TestABuildDoesNotSeeTheNodesToken(t *testing.T) {
	t.Setenv("QUIPU_TOKEN", "hush")
	w := newWorld(t)
	w.wantBuildError(w.build(`echo "token: <$QUIPU_TOKEN>"; exit 1`), "token: <>")
}

func TestTheEndOfWhatIsWrittenIsKept(t *testing.T) {
	all := strings.Repeat("0123456789", outputBytesKept)
	for _, piece := range []int{1, 7, outputBytesKept - 1, outputBytesKept, outputBytesKept + 1, len(all)} {
		for _, total := range []int{1, outputBytesKept, outputBytesKept + 1, len(all)} {
			var e ending
			for from := 0; from < total; from += piece {
				_, _ = e.Write([]byte(all[from:min(from+piece, total)]))
			}
			if want := all[max(0, total-outputBytesKept):total]; strings.TrimPrefix(e.text(), "…") != want || e.cut != (total > outputBytesKept) {
				t.Errorf("%d bytes in pieces of %d: %d are kept, cut is %v", total, piece, len(e.kept), e.cut)
			}
		}
	}
}
