// Systemctl stands for systemd's on a node whose root is a test's folder: it writes down what it was asked for.
package main

import (
	"fmt"
	"os"
	"strings"
)

func main() {
	f, err := os.OpenFile("/systemctl.asked", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = fmt.Fprintln(f, strings.Join(os.Args[1:], " "))
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
