// Command render prints what kustomize and Helm make of a folder, with the libraries of both: for the tests of
// contrib/kubernetes.
//
//	render kustomize DIR
//	render chart DIR NAMESPACE [KEY=VALUE...]
package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"helm.sh/helm/v4/pkg/strvals"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "render:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "kustomize":
		return kustomize(args[1])
	case len(args) >= 3 && args[0] == "chart":
		return chart(args[1], args[2], args[3:])
	}
	return errors.New("usage: render kustomize DIR | render chart DIR NAMESPACE [KEY=VALUE...]")
}

func kustomize(dir string) error {
	m, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return err
	}
	text, err := m.AsYaml()
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(text)
	return err
}

func chart(dir, namespace string, set []string) error {
	c, err := loader.Load(dir)
	if err != nil {
		return err
	}
	values := map[string]any{}
	for _, s := range set {
		if err := strvals.ParseInto(s, values); err != nil {
			return err
		}
	}
	all, err := util.ToRenderValues(c, values, common.ReleaseOptions{Name: "stockade", Namespace: namespace, Revision: 1, IsInstall: true}, common.DefaultCapabilities)
	if err != nil {
		return err
	}
	files, err := engine.Render(c, all)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if path.Ext(name) != ".yaml" {
			continue // NOTES.txt
		}
		fmt.Printf("---\n# %s\n%s\n", name, files[name])
	}
	return nil
}
