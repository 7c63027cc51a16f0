package observe

import (
	"context"
	"encoding/json"
	"io"
	"os"

	"gopkg.in/natefinch/lumberjack.v2"
)

// Lines writes findings as JSON lines with OCSF's field names.
type Lines struct {
	out           io.Writer
	node, version string
}

// NewLines makes a sink that writes to a file, or to standard output for "-". At
// 64 MiB the file is put aside, with a time in its name; four of them are kept.
// They are for root alone.
func NewLines(path, node, version string) *Lines {
	if path == "-" {
		return &Lines{os.Stdout, node, version}
	}
	return &Lines{&lumberjack.Logger{Filename: path, MaxSize: 64, MaxBackups: 4}, node, version}
}

// Name is that of the sink.
func (*Lines) Name() string { return "json" }

// Put writes one line.
func (l *Lines) Put(_ context.Context, f Finding) error {
	data, err := json.Marshal(OCSF(f, l.node, l.version))
	if err != nil {
		return err
	}
	_, err = l.out.Write(append(data, '\n'))
	return err
}

// Close closes the file.
func (l *Lines) Close(context.Context) {
	if c, ok := l.out.(*lumberjack.Logger); ok {
		_ = c.Close()
	}
}
