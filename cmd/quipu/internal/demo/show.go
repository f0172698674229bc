package demo

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// show writes to people. A bar is drawn only on a terminal; elsewhere each tenth is a line.
type show struct {
	out      io.Writer
	terminal bool

	mu    sync.Mutex // guards the fields below
	total int
	tenth int
	start time.Time
}

const barWidth = 40

func (s *show) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.terminal {
		fmt.Fprint(s.out, "\r\033[K")
	}
	fmt.Fprintf(s.out, format+"\n", args...)
}

func (s *show) begin(total int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total, s.tenth, s.start = total, 0, time.Now()
}

func (s *show) progress(done int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rate := float64(done) / time.Since(s.start).Seconds()
	if s.terminal {
		full := barWidth * done / s.total
		fmt.Fprintf(s.out, "\r\033[K  [%s%s] %d of %d flights, %.0f/s", strings.Repeat("=", full), strings.Repeat(" ", barWidth-full), done, s.total, rate)
		if done == s.total {
			fmt.Fprintln(s.out)
		}
		return
	}
	if tenth := 10 * done / s.total; tenth > s.tenth {
		s.tenth = tenth
		fmt.Fprintf(s.out, "  %d of %d flights, %.0f/s\n", done, s.total, rate)
	}
}

// rows of the printed table.
const shown = 10

// compare prints what the functions counted beside what the file says.
func compare(out io.Writer, counted, direct Table) {
	fmt.Fprintf(out, "\n  %-8s %24s   %24s\n", "", "counted by the functions", "computed from the file")
	fmt.Fprintf(out, "  %-8s %8s %8s %6s   %8s %8s %6s   delays from early to late\n", "airport", "flights", "minutes", "mean", "flights", "minutes", "mean")
	for _, airport := range direct.busiest(shown) {
		a, b := counted.total(airport), direct.total(airport)
		fmt.Fprintf(out, "  %-8s %8d %8d %6.2f   %8d %8d %6.2f   %s\n", airport, a[0], a[1], mean(a), b[0], b[1], mean(b), bars(a[2:]))
	}
	fmt.Fprintf(out, "  %-8s %8d %8s %6s   %8d\n\n", fmt.Sprintf("all %d", len(direct)), counted.flights(), "", "", direct.flights())
}

func mean(sum []int) float64 {
	if sum[0] == 0 {
		return 0
	}
	return float64(sum[1]) / float64(sum[0])
}

// bars draws a histogram in one word.
func bars(counts []int) string {
	const levels = "▁▂▃▄▅▆▇█"
	most := 1
	for _, n := range counts {
		most = max(most, n)
	}
	var b strings.Builder
	for _, n := range counts {
		b.WriteRune([]rune(levels)[n*7/most])
	}
	return b.String()
}
