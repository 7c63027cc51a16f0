// Sh stands for the shell of a node whose root is a test's folder: whatever line it is given, it asks the test, which
// owns containerd, to restart it, and waits for the answer.
package main

import (
	"fmt"
	"os"
	"time"
)

func main() {
	if err := os.WriteFile("/restart.asked", nil, 0o600); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for range 6000 {
		if said, err := os.ReadFile("/restart.done"); err == nil {
			_ = os.Remove("/restart.done")
			fmt.Print(string(said))
			if len(said) > 0 {
				os.Exit(1)
			}
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Println("nobody restarts containerd")
	os.Exit(1)
}
