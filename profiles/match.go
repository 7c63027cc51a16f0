package profiles

import (
	"fmt"
	"slices"
	"strings"
)

// Match says which containers a profile is for. All that is given must hold.
type Match struct {
	Images     []string          // image references; * stands for any characters
	Namespaces []string          // of the pod
	Labels     map[string]string // of the pod (podSelector.matchLabels)
	Containers []string          // names within the pod
}

// MatchFacts are what is known of a container.
type MatchFacts struct {
	CRI                         bool // the container of a pod
	Image, Namespace, Container string
	Labels                      map[string]string // of the pod
	LabelsKnown                 bool
}

// Holds reports whether the profile is for this container, and if not, why. What is not known does not hold. A nil
// Match holds for every container.
func (m *Match) Holds(f MatchFacts) (bool, string) {
	if m == nil {
		return true, ""
	}
	if len(m.Images) > 0 {
		if f.Image == "" {
			return false, "match.images is given and the image is not known"
		}
		if !slices.ContainsFunc(m.Images, func(p string) bool { return imageMatches(p, f.Image) }) {
			return false, fmt.Sprintf("the image %s is not one of match.images", f.Image)
		}
	}
	if ok, why := m.holdsOfPod(f); !ok {
		return false, why
	}
	return true, ""
}

func (m *Match) holdsOfPod(f MatchFacts) (bool, string) {
	if len(m.Namespaces)+len(m.Containers)+len(m.Labels) == 0 {
		return true, ""
	}
	switch {
	case !f.CRI:
		return false, "match asks for a pod's container, and this one belongs to no pod"
	case len(m.Namespaces) > 0 && !slices.Contains(m.Namespaces, f.Namespace):
		return false, fmt.Sprintf("the namespace %q is not one of match.namespaces", f.Namespace)
	case len(m.Containers) > 0 && !slices.Contains(m.Containers, f.Container):
		return false, fmt.Sprintf("the container %q is not one of match.containers", f.Container)
	case len(m.Labels) > 0 && !f.LabelsKnown:
		return false, "match.podSelector is given and the pod's labels are not known here"
	}
	for _, key := range sortedKeys(m.Labels) {
		if value, ok := f.Labels[key]; !ok || value != m.Labels[key] {
			return false, fmt.Sprintf("the pod has no label %s=%s", key, m.Labels[key])
		}
	}
	return true, ""
}

// imageMatches compares an image reference with a pattern in which * stands for any characters. Taking the leftmost
// fit for each part in between is enough, since what follows may start anywhere after it.
func imageMatches(pattern, image string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == image
	}
	rest, ok := strings.CutPrefix(image, parts[0])
	if !ok {
		return false
	}
	last := len(parts) - 1
	for _, part := range parts[1:last] {
		at := strings.Index(rest, part)
		if at < 0 {
			return false
		}
		rest = rest[at+len(part):]
	}
	return strings.HasSuffix(rest, parts[last])
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
