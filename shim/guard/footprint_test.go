package guard

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// BenchmarkFootprint measures the real program: ten guards that each watch a container, for 20 s.
//
//	go test -run - -bench Footprint -benchtime 1x ./shim/guard
func BenchmarkFootprint(b *testing.B) {
	const guards, seconds = 10, 20
	binary := filepath.Join(b.TempDir(), comm)
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", binary, "../../cmd/stockade-guard")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	for _, watch := range []bool{false, true} {
		b.Run(fmt.Sprintf("watch=%v", watch), func(b *testing.B) {
			if b.N > 1 {
				b.Skip("use -benchtime 1x")
			}
			var pids []int
			for range guards {
				group, err := newGroup("")
				if err != nil {
					b.Skip("needs root: ", err)
				}
				defer func() { _ = group.Close() }()
				g, err := Start(binary, group)
				if err != nil {
					b.Fatal(err)
				}
				defer g.proc.end()
				if watch {
					c, _ := hammer(b, "sleep 1000")
					if err := g.Watch("c", c.Spec()); err != nil {
						b.Fatal(err)
					}
				}
				pids = append(pids, g.PID())
			}
			time.Sleep(2 * time.Second)
			before := cpu(pids)
			time.Sleep(seconds * time.Second)
			used := cpu(pids) - before
			b.ReportMetric(float64(used.Microseconds())/guards/seconds, "us-cpu/s/guard")
			for _, field := range []string{"Rss", "Pss", "Pss_Anon"} {
				b.ReportMetric(memory(pids, field)/guards, "KiB-"+field)
			}
		})
	}
}

// cpu is what all threads of the processes have used: schedstat in proc_pid_schedstat, first field, nanoseconds.
func cpu(pids []int) (sum time.Duration) {
	for _, pid := range pids {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		for _, file := range files {
			var n time.Duration
			data, _ := os.ReadFile(file)
			_, _ = fmt.Sscan(string(data), &n)
			sum += n
		}
	}
	return sum
}

func memory(pids []int, field string) (kib float64) {
	for _, pid := range pids {
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		for line := range bytes.Lines(data) {
			if name, rest, _ := strings.Cut(string(line), ":"); name == field {
				var n float64
				_, _ = fmt.Sscan(rest, &n)
				kib += n
			}
		}
	}
	return kib
}
