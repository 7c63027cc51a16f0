package selection

import (
	"strings"

	"github.com/distribution/reference"

	"github.com/stockade-dev/stockade/profiles"
)

// Annotation names the profile of a container; with ".CONTAINER" appended, that
// of one container of a pod.
const Annotation = "stockade.dev/profile"

// Annotations that containerd's CRI plugin sets itself, over whatever a pod asks
// for (containerd's internal/cri/annotations).
const (
	criType      = "io.kubernetes.cri.container-type"
	criContainer = "io.kubernetes.cri.container-name"
	criImage     = "io.kubernetes.cri.image-name"
	criSandbox   = "io.kubernetes.cri.sandbox-id"
	criPod       = "io.kubernetes.cri.sandbox-name"
	criNamespace = "io.kubernetes.cri.sandbox-namespace"
	criPodUID    = "io.kubernetes.cri.sandbox-uid"
)

// Container is what a container's annotations say of it.
type Container struct {
	Request Request // without labels
	Bearer  Bearer
	Pod     string
	PodUID  string
	Pause   bool // the pod's pause container, which runs nothing of anybody's
}

// FromAnnotations reads the annotations of the container with this id. Those of
// containerd's CRI plugin say where it belongs; without them it is no pod's.
func FromAnnotations(id string, a map[string]string) Container {
	return Container{
		Request: Request{
			Facts: profiles.MatchFacts{
				CRI: a[criType] != "", Image: fullReference(a[criImage]), Namespace: a[criNamespace], Container: a[criContainer],
			},
			Asked: asks(a, a[criContainer]),
		},
		Bearer: Bearer{Container: id, Sandbox: a[criSandbox], Name: a[criContainer]},
		Pod:    a[criPod],
		PodUID: a[criPodUID],
		Pause:  a[criType] == "sandbox" && a[criSandbox] == id,
	}
}

// WithPod adds what only the plugin sees: the annotations and labels of the pod.
// The pod's annotations count where the container has none of its own.
func (c Container) WithPod(annotations, labels map[string]string) Container {
	if c.Request.Asked == "" {
		c.Request.Asked = asks(annotations, c.Bearer.Name)
	}
	c.Request.Facts.Labels, c.Request.Facts.LabelsKnown = labels, true
	return c
}

func asks(a map[string]string, container string) string {
	if own, ok := a[Annotation+"."+container]; ok && container != "" {
		return own
	}
	return a[Annotation]
}

// fullReference is an image's name as containerd stores it, docker.io/library/redis:7: containerd's annotation has it as
// the pod's author wrote it, which may be redis:7. What is no reference is left as it is.
func fullReference(image string) string {
	if strings.HasPrefix(image, "sha256:") {
		return image // an image's ID, which would pass for the repository sha256
	}
	named, err := reference.ParseDockerRef(image)
	if err != nil {
		return image
	}
	return named.String()
}
