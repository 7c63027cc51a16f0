package cluster

import (
	"context"
	"errors"
	"fmt"
	neturl "net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// Daemons does what the controllers that this cluster lacks would do for DaemonSets: it makes their pods, replaces them
// when the template changes, says in the status how they are, gives their namespaces the API server's certificate, and
// ends namespaces that are deleted. The pods are those of the template, but for the places of this node: its root is a
// folder, and pods reach the API server at the host's loopback. It is JSON, so that another process can do it.
type Daemons struct {
	Kubeconfig string `json:"kubeconfig"`
	Node       string `json:"node"`
	Root       string `json:"root"`       // the folder that stands for the host's root
	NRI        string `json:"nri"`        // the socket
	Containerd string `json:"containerd"` // the socket

	client kubernetes.Interface
	api    *neturl.URL
	ca     []byte
}

// Daemons are for this cluster.
func (c *Cluster) Daemons() *Daemons {
	return &Daemons{Kubeconfig: c.Kubeconfig(), Node: c.NodeName, Root: c.Node.Dir(), NRI: c.Node.NRISocket(), Containerd: c.Node.Address()}
}

// The annotation and label by which a pod of ours is known again.
const (
	daemonLabel      = "stockade.test/daemon"
	daemonGeneration = "stockade.test/generation"
)

// Run works until ctx ends. What fails is tried again; say is told of it.
func (d *Daemons) Run(ctx context.Context, say func(error)) error {
	conf, err := clientcmd.BuildConfigFromFlags("", d.Kubeconfig)
	if err != nil {
		return err
	}
	conf.QPS, conf.Burst = 100, 200
	if d.client, err = kubernetes.NewForConfig(conf); err != nil {
		return err
	}
	if d.api, err = neturl.Parse(conf.Host); err != nil {
		return err
	}
	if d.ca, err = os.ReadFile(conf.CAFile); err != nil {
		return err
	}
	for ctx.Err() == nil {
		if err := d.look(ctx); err != nil && ctx.Err() == nil {
			say(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
	return nil
}

func (d *Daemons) look(ctx context.Context) error {
	namespaces, err := d.client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	var errs []error
	for i := range namespaces.Items {
		if ns := &namespaces.Items[i]; ns.DeletionTimestamp != nil {
			errs = append(errs, d.end(ctx, ns))
		}
	}
	sets, err := d.client.AppsV1().DaemonSets("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	there := map[string]bool{}
	for i := range sets.Items {
		set := &sets.Items[i]
		if set.DeletionTimestamp == nil {
			there[set.Namespace+"/"+set.Name] = true
			errs = append(errs, d.serve(ctx, set))
		}
	}
	pods, err := d.client.CoreV1().Pods("").List(ctx, metav1.ListOptions{LabelSelector: daemonLabel})
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for i := range pods.Items {
		if pod := &pods.Items[i]; !there[pod.Namespace+"/"+pod.Labels[daemonLabel]] {
			errs = append(errs, d.remove(ctx, pod))
		}
	}
	return errors.Join(errs...)
}

func (d *Daemons) remove(ctx context.Context, pod *corev1.Pod) error {
	if pod.DeletionTimestamp != nil {
		return nil
	}
	return ignoreGone(d.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{}))
}

func ignoreGone(err error) error {
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // the next look shows
	}
	return err
}

// serve makes one DaemonSet's pod what its template says, and its status what the pod is.
func (d *Daemons) serve(ctx context.Context, set *appsv1.DaemonSet) error {
	pods := d.client.CoreV1().Pods(set.Namespace)
	pod, err := pods.Get(ctx, set.Name+"-"+d.Node, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		if err := d.trust(ctx, set.Namespace); err != nil {
			return err
		}
		if pod, err = pods.Create(ctx, d.pod(set), metav1.CreateOptions{}); err != nil {
			return err
		}
	case err != nil:
		return err
	case pod.Annotations[daemonGeneration] != fmt.Sprint(set.Generation):
		return d.remove(ctx, pod)
	}
	now := appsv1.DaemonSetStatus{
		ObservedGeneration: set.Generation, DesiredNumberScheduled: 1, CurrentNumberScheduled: 1, UpdatedNumberScheduled: 1, NumberUnavailable: 1,
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			now.NumberReady, now.NumberAvailable, now.NumberUnavailable = 1, 1, 0
		}
	}
	if set.Status.ObservedGeneration == now.ObservedGeneration && set.Status.NumberReady == now.NumberReady && set.Status.UpdatedNumberScheduled == 1 {
		return nil
	}
	set.Status = now
	_, err = d.client.AppsV1().DaemonSets(set.Namespace).UpdateStatus(ctx, set, metav1.UpdateOptions{})
	return ignoreGone(err)
}

// trust gives a namespace what every pod with a service account mounts.
func (d *Daemons) trust(ctx context.Context, namespace string) error {
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "kube-root-ca.crt", Namespace: namespace}, Data: map[string]string{"ca.crt": string(d.ca)}}
	_, err := d.client.CoreV1().ConfigMaps(namespace).Create(ctx, m, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// pod is the template's, at the places of this node.
func (d *Daemons) pod(set *appsv1.DaemonSet) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: *set.Spec.Template.ObjectMeta.DeepCopy(), Spec: *set.Spec.Template.Spec.DeepCopy()}
	pod.Name, pod.Namespace = set.Name+"-"+d.Node, set.Namespace
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[daemonGeneration] = fmt.Sprint(set.Generation)
	pod.Labels[daemonLabel] = set.Name
	pod.Spec.NodeName, pod.Spec.HostNetwork = d.Node, true
	delete(pod.Spec.NodeSelector, "kubernetes.io/arch") // whatever this machine is
	for i := range pod.Spec.Volumes {
		h := pod.Spec.Volumes[i].HostPath
		if h == nil {
			continue
		}
		if h.Path = filepath.Join(d.Root, h.Path); strings.HasSuffix(h.Path, "/var/run/nri") {
			h.Path = filepath.Dir(d.NRI)
		}
	}
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{
		Name: "socket", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: filepath.Dir(d.Containerd)}},
	})
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			d.place(&list[i])
		}
	}
	return pod
}

func (d *Daemons) place(c *corev1.Container) {
	c.Env = append(c.Env, corev1.EnvVar{Name: "KUBERNETES_SERVICE_HOST", Value: d.api.Hostname()}, corev1.EnvVar{Name: "KUBERNETES_SERVICE_PORT", Value: d.api.Port()})
	if len(c.Args) == 0 || c.Args[0] != "install" && c.Args[0] != "uninstall" {
		return
	}
	c.Args = append(c.Args, "--address=/socket/containerd.sock", "--restart-command=restart containerd")
	if c.Args[0] == "install" {
		c.Args = append(c.Args, "--containerd-config=/containerd.toml")
	}
	c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "socket", MountPath: "/socket"})
}

// end removes what is in a namespace that is deleted, as far as anybody here makes it, and then the namespace.
func (d *Daemons) end(ctx context.Context, ns *corev1.Namespace) error {
	now, all := metav1.DeleteOptions{GracePeriodSeconds: new(int64)}, metav1.ListOptions{}
	core := d.client.CoreV1()
	errs := []error{
		d.client.AppsV1().DaemonSets(ns.Name).DeleteCollection(ctx, metav1.DeleteOptions{}, all),
		core.Pods(ns.Name).DeleteCollection(ctx, now, all), core.ServiceAccounts(ns.Name).DeleteCollection(ctx, now, all),
		core.ConfigMaps(ns.Name).DeleteCollection(ctx, now, all), core.Secrets(ns.Name).DeleteCollection(ctx, now, all),
		core.Events(ns.Name).DeleteCollection(ctx, now, all),
	}
	pods, err := core.Pods(ns.Name).List(ctx, all)
	if err = errors.Join(append(errs, err)...); err != nil || len(pods.Items) > 0 {
		return err
	}
	ns.Spec.Finalizers = nil
	_, err = core.Namespaces().Finalize(ctx, ns, metav1.UpdateOptions{})
	return ignoreGone(err)
}
