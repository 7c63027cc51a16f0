package observe

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"strings"
	"time"

	events "github.com/containerd/containerd/api/services/events/v1"
	version "github.com/containerd/containerd/api/services/version/v1"
	"github.com/fsnotify/fsnotify"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/stockade-dev/stockade/shim/incident"
)

// Topic is where shims publish violations: a google.protobuf.Struct with the
// fields of incident.Incident.
const Topic = "/stockade/violation"

// maxMessage bounds one event, as containerd's own clients do.
const maxMessage = 16 << 20

// listen reads the bus until ctx ends, and connects again.
func (o *Observer) listen(ctx context.Context, to chan<- *incident.Incident) {
	const least, most = 200 * time.Millisecond, 5 * time.Second
	wait, said := least, false
	for {
		begun := time.Now()
		err := o.subscribe(ctx, to)
		o.metrics.bus.Set(0)
		if ctx.Err() != nil {
			return
		}
		if time.Since(begun) > most {
			wait, said = least, false
		}
		if !said {
			o.cfg.Log.WithError(err).Warn("stockade-nri: containerd's event bus is not read; violations are taken from the incident folder")
			said = true
		}
		if !sleep(ctx, wait) {
			return
		}
		wait = min(2*wait, most)
	}
}

// subscribe is one connection's life.
func (o *Observer) subscribe(ctx context.Context, to chan<- *incident.Incident) error {
	conn, err := grpc.NewClient("unix://"+o.cfg.Containerd, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, err := events.NewEventsClient(conn).Subscribe(ctx, &events.SubscribeRequest{Filters: []string{`topic=="` + Topic + `"`}})
	if err != nil {
		return err
	}
	// The stream is silent until something happens: whether containerd answers is asked for.
	if _, err := version.NewVersionClient(conn).Version(ctx, &emptypb.Empty{}); err != nil {
		return err
	}
	o.metrics.bus.Set(1)
	for {
		envelope, err := stream.Recv()
		if err != nil {
			return err
		}
		inc, err := decode(envelope.GetEvent().GetValue())
		if err != nil {
			o.metrics.lose(stageDamaged)
			o.cfg.Log.WithError(err).Warn("stockade-nri: an event that is no incident")
			continue
		}
		if !send(ctx, to, inc) {
			return ctx.Err()
		}
	}
}

// decode reads what the shim has published.
func decode(data []byte) (*incident.Incident, error) {
	var event structpb.Struct
	if err := proto.Unmarshal(data, &event); err != nil {
		return nil, err
	}
	text, err := protojson.Marshal(&event)
	if err != nil {
		return nil, err
	}
	var inc incident.Incident
	if err := json.Unmarshal(text, &inc); err != nil {
		return nil, err
	}
	if inc.ID == "" || len(inc.ID) > 64 {
		return nil, errors.New("it has no ID")
	}
	return &inc, nil
}

// Folders are looked at when inotify(7) says so, and that often where it does
// not: it may be full, and a folder that was made again is another one.
const (
	lookEvery = 5 * time.Second
	settle    = 200 * time.Millisecond // what comes together is read together
)

// look reads from the folder what the bus did not bring, until ctx ends.
func (o *Observer) look(ctx context.Context, to chan<- *incident.Incident) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		o.cfg.Log.WithError(err).Warn("stockade-nri: the incident folder is looked at every few seconds only")
		watcher = &fsnotify.Watcher{} // its channels are nil: nothing ever comes
	} else {
		defer watcher.Close()
	}
	var last time.Time // the folder's change that was seen last, if it was old enough to be the last of its tick
	for {
		if watcher.Events != nil {
			_ = watcher.Add(o.cfg.Incidents) // again: it may have been made, or made anew
		}
		if info, err := os.Stat(o.cfg.Incidents); err == nil && !info.ModTime().Equal(last) {
			last = time.Time{}
			if time.Since(info.ModTime()) > time.Second {
				last = info.ModTime()
			}
			if !o.lookOnce(ctx, to) {
				return
			}
		}
		if !o.stirred(ctx, watcher) {
			return
		}
	}
}

// stirred waits until something happens in the folder, or it is time to look.
func (o *Observer) stirred(ctx context.Context, watcher *fsnotify.Watcher) bool {
	late := time.After(o.lookEvery)
	for {
		select {
		case <-ctx.Done():
			return false
		case <-late:
			return true
		case <-watcher.Errors:
			return sleep(ctx, settle)
		case e := <-watcher.Events:
			if strings.HasSuffix(e.Name, ".json") { // not what we and the shims write beside them
				return sleep(ctx, settle)
			}
		}
	}
}

func (o *Observer) lookOnce(ctx context.Context, to chan<- *incident.Incident) bool {
	entries, err := os.ReadDir(o.cfg.Incidents) // sorted by name, and so by time
	if err != nil {
		return true
	}
	there := map[string]bool{}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || strings.HasPrefix(id, ".") {
			continue
		}
		there[id] = true
		if o.seen.has(id) {
			continue
		}
		inc, err := incident.Read(o.cfg.Incidents, id)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, incident.ErrNotFound):
			continue
		case err != nil:
			if o.seen.add(id) {
				o.metrics.lose(stageDamaged)
				o.cfg.Log.WithError(err).Warn("stockade-nri: a file that is no incident")
			}
			continue
		}
		if !send(ctx, to, &inc) {
			return false
		}
	}
	o.seen.forget(there)
	return true
}

func send(ctx context.Context, to chan<- *incident.Incident, inc *incident.Incident) bool {
	select {
	case to <- inc:
		return true
	case <-ctx.Done():
		return false
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
