package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/stockade-dev/stockade/nri/v1alpha1"
	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/profiles/difference"
)

// parse reads a resource as a file of the node's store would be read. It goes
// over what the API server sent, not over the Go types: a field that this
// version of Stockade does not know is an error and not left out in silence.
func parse(u *unstructured.Unstructured) (*profiles.Profile, error) {
	doc := map[string]any{"apiVersion": u.GetAPIVersion(), "kind": u.GetKind(), "metadata": map[string]any{"name": u.GetName()}}
	if spec, given := u.Object["spec"]; given {
		doc["spec"] = spec
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(doc); err != nil {
		return nil, err
	}
	all, err := profiles.Parse(u.GetName(), b.Bytes())
	if err != nil {
		return nil, withoutPlaces(err)
	}
	return all[0], nil
}

// withoutPlaces drops line and column, which are those of no file that anybody
// has seen; the fields tell where.
func withoutPlaces(err error) error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return err
	}
	var all []error
	for _, err := range joined.Unwrap() {
		if e, ok := errors.AsType[*profiles.Error](err); ok {
			bare := *e
			bare.Position = profiles.Position{}
			err = &bare
		}
		all = append(all, err)
	}
	return errors.Join(all...)
}

// short fits an error into a status.
func short(err error) string {
	if err == nil {
		return ""
	}
	const most = 1000
	text := strings.ToValidUTF8(strings.ReplaceAll(err.Error(), "\n", "; "), "?")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + " ..."
	}
	return text
}

// change tells who wrote the declaration last, as far as managedFields says:
// the latest entry with spec in it. Clients name themselves there, and may clear
// it; the API server's audit log has users.
func change(u *unstructured.Unstructured) *v1alpha1.Change {
	var last *v1alpha1.Change
	for _, f := range u.GetManagedFields() {
		if f.Subresource != "" || f.FieldsV1 == nil || f.Time == nil {
			continue
		}
		var fields map[string]any
		if json.Unmarshal(f.FieldsV1.GetRawBytes(), &fields) != nil || fields["f:spec"] == nil {
			continue
		}
		if last == nil || last.Time.Before(f.Time) {
			last = &v1alpha1.Change{By: cut(f.Manager, 256), Operation: string(f.Operation), Time: f.Time}
		}
	}
	return last
}

func cut(s string, most int) string {
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "")
	}
	return s
}

// changedBy says it in a line.
func changedBy(c *v1alpha1.Change) string {
	if c == nil {
		return "who changed it last is not known"
	}
	return "last changed by " + c.By + " (" + c.Operation + ") at " + c.Time.UTC().Format(time.RFC3339)
}

// tooMany bounds what a comparison costs: it grows with the product.
const tooMany = 2000

// loosened lists what after lets pass that before did not.
func loosened(before, after *profiles.Profile) []string {
	var out []string
	if size(before)+size(after) > tooMany {
		return []string{"too many rules to compare: stockade profile diff does"}
	}
	for _, name := range after.Extends {
		if !slices.Contains(before.Extends, name) {
			out = append(out, "+ extends "+name)
		}
	}
	for _, c := range difference.Of(before, after) {
		if c.Effect == difference.Stricter {
			continue
		}
		text := c.Sign + " " + c.Field + " " + c.Text
		if c.Was != "" {
			text += " (was " + c.Was + ")"
		}
		out = append(out, text)
	}
	return out
}

func size(p *profiles.Profile) int {
	n := 0
	count := func(lists ...*profiles.Rules) {
		for _, r := range lists {
			n += len(r.Exec) + len(r.Read) + len(r.Write) + len(r.Syscalls) + len(r.Capabilities) + len(r.Listen) + len(r.Connect)
		}
	}
	count(&p.Allow, &p.Deny, &p.Sessions)
	for i := range p.Programs {
		count(&p.Programs[i].Allow, &p.Programs[i].Deny)
	}
	return n
}
