// Systemctl stands for systemd's on a node whose root is a test's folder: it writes down what it was asked for. As
// systemd's, it knows no service whose unit is not there, and takes the link of one that it disables. What stands in
// systemctl.fails it cannot do.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func run(args []string) error {
	f, err := os.OpenFile("/systemctl.asked", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := fmt.Fprintln(f, strings.Join(args, " ")); err != nil {
		return err
	}
	if bad, err := os.ReadFile("/systemctl.fails"); err == nil && string(bad) == args[0] {
		return fmt.Errorf("%s fails", bad)
	}
	unit := args[len(args)-1]
	if !strings.HasSuffix(unit, ".service") {
		return nil
	}
	if _, err := os.Stat("/etc/systemd/system/" + unit); err != nil {
		return err
	}
	if args[0] == "disable" {
		if err := os.Remove("/etc/systemd/system/multi-user.target.wants/" + unit); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
