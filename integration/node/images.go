package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
)

// Import loads the image tar into the node's namespace and unpacks it.
func (n *Node) Import(ctx context.Context, tar string) error {
	return n.ImportInto(ctx, n.Namespace, tar)
}

// ImportInto loads the image tar into another namespace: the CRI's is "k8s.io".
func (n *Node) ImportInto(ctx context.Context, namespace, tar string) error {
	ctx = namespaces.WithNamespace(ctx, namespace)
	f, err := os.Open(tar)
	if err != nil {
		return err
	}
	defer f.Close()
	images, err := n.Client.Import(ctx, f)
	if err != nil {
		return fmt.Errorf("import %s: %w", tar, err)
	}
	for _, i := range images {
		image := containerd.NewImageWithPlatform(n.Client, i, platforms.Default())
		if err := image.Unpack(ctx, snapshotter); err != nil {
			return fmt.Errorf("unpack %s: %w", i.Name, err)
		}
	}
	return nil
}

// deleteAll ends and removes every container of every namespace.
func (n *Node) deleteAll(ctx context.Context) error {
	all, err := n.Client.NamespaceService().List(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, ns := range all {
		ctx := namespaces.WithNamespace(ctx, ns)
		containers, err := n.Client.Containers(ctx)
		errs = append(errs, err)
		for _, c := range containers {
			errs = append(errs, deleteContainer(ctx, c))
		}
	}
	return errors.Join(errs...)
}

func deleteContainer(ctx context.Context, c containerd.Container) error {
	task, err := c.Task(ctx, nil)
	if err == nil {
		_, err = task.Delete(ctx, containerd.WithProcessKill)
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return c.Delete(ctx, containerd.WithSnapshotCleanup)
}

// Find returns where a file of the container lies on the host, as the overlay would show it: the upper layer's, or the
// image's. Links in path are not followed.
func (r Rootfs) Find(path string) (host string, changed, ok bool) {
	if st, err := os.Lstat(filepath.Join(r.Upper, path)); err == nil {
		return filepath.Join(r.Upper, path), true, !isWhiteout(st)
	}
	for _, l := range r.Lower {
		if st, err := os.Lstat(filepath.Join(l, path)); err == nil {
			return filepath.Join(l, path), false, !isWhiteout(st)
		}
	}
	return "", false, false
}

// isWhiteout: overlayfs marks a removed file by a character device 0/0 (kernel's Documentation/filesystems/overlayfs).
func isWhiteout(st os.FileInfo) bool {
	return st.Mode()&os.ModeCharDevice != 0 && deviceNumber(st) == 0
}
