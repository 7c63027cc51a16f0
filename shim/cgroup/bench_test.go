package cgroup

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// BenchmarkKill measures, for containers of 100 processes, the time of Kill and the time until all are dead.
//
//	go test -run - -bench Kill -benchtime 100x ./shim/cgroup
func BenchmarkKill(b *testing.B) {
	loads := []struct{ name, script string }{
		{"sleeping", "for i in $(seq 99); do sleep 100 & done; wait"},
		{"busy", "for i in $(seq 99); do while :; do :; done & done; wait"},
	}
	for version := 1; version <= 2; version++ {
		for _, load := range loads {
			for _, namespace := range []bool{true, false} {
				b.Run(fmt.Sprintf("v%d/%s/namespace=%v", version, load.name, namespace), func(b *testing.B) {
					var returned, dead []time.Duration
					for range b.N {
						b.StopTimer()
						p := park(b, group(b, version), load.script, namespace)
						c := p.open(b, version)
						p.run(b)
						atLeast(b, c, 100)
						b.StartTimer()
						begin := time.Now()
						if err := c.Kill(); err != nil {
							b.Fatal(err)
						}
						returned = append(returned, time.Since(begin))
						for {
							if empty, err := c.Empty(); err != nil {
								b.Fatal(err)
							} else if empty {
								break
							}
							time.Sleep(20 * time.Microsecond)
						}
						dead = append(dead, time.Since(begin))
						_ = p.Wait()
					}
					report(b, returned, "return")
					report(b, dead, "dead")
				})
			}
		}
	}
}

func report(b *testing.B, times []time.Duration, what string) {
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Microseconds()), "us-"+what+"-p50")
	b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), "us-"+what+"-p99")
}
