package main

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/profiles/store"
	"github.com/stockade-dev/stockade/shim/config"
)

// TestProfileList: what containers can get, where it comes from, and what is wrong with it.
func TestProfileList(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: the store wants root's files")
	}
	conf, dir := node(t)
	if r := stockade(t, conf, "profile", "list"); r.code != exitOK || r.out != "" || !strings.Contains(r.err, "no profile in "+dir) {
		t.Errorf("an empty store: %+v", r)
	}
	const head = "apiVersion: stockade.dev/v1alpha1\nkind: Profile\nmetadata: {name: "
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(dir+"/profiles.d/"+name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("base.yaml", head+"base}\nspec: {allow: {read: ['@image']}}\n")
	write("web.yaml", head+"web}\nspec:\n  match: {images: ['docker.io/library/nginx:*'], namespaces: [prod, test], podSelector: {matchLabels: {app: web}}}\n"+
		"  extends: [base]\n  mode: monitor\n  allow: {exec: [/usr/sbin/nginx]}\n")
	file, err := os.OpenFile(conf, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = file.WriteString("cluster: " + dir + "/cluster.d\n")
	}
	if err = errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
	folder, err := store.OpenClusterFolder(dir + "/cluster.d")
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	parsed, err := profiles.Parse("redis", []byte(head+"redis}\nspec: {match: {containers: [redis]}, allow: {exec: [/bin/redis]}}\n"))
	if err == nil {
		_, err = folder.Put(parsed[0])
	}
	if err != nil {
		t.Fatal(err)
	}
	r := stockade(t, conf, "profile", "list")
	if r.code != exitOK || r.err != "" {
		t.Errorf("%+v", r)
	}
	golden(t, "list", r.out, dir)

	write("orphan.yaml", head+"orphan}\nspec: {extends: [nobody], match: {}}\n")
	write("zz-bad.yaml", "nonsense: [")
	r = stockade(t, conf, "profile", "list")
	if r.code != exitNo || !strings.Contains(r.err, "zz-bad.yaml") || !strings.Contains(r.err, "nobody") || !strings.Contains(r.out, "orphan  -") {
		t.Errorf("%+v", r)
	}
	v := isJSON(t, stockade(t, conf, "profile", "ls", "--json").out)
	by := map[string]map[string]any{}
	for _, p := range v["profiles"].([]any) {
		by[p.(map[string]any)["name"].(string)] = p.(map[string]any)
	}
	if by["redis"]["source"] != "profiles.stockade.dev/redis" || by["redis"]["mode"] != "enforce" || by["base"]["match"] != nil ||
		by["web"]["match"].(map[string]any)["matchLabels"].(map[string]any)["app"] != "web" || by["orphan"]["problem"] == nil || len(v["problems"].([]any)) != 2 {
		t.Errorf("%v", v)
	}
	if digest := by["web"]["digest"].(string); !strings.Contains(stockade(t, conf, "profile", "list", "--no-trunc").out, digest) {
		t.Errorf("--no-trunc does not print %s", digest)
	}
	t.Setenv(config.EnvVar, conf)
	var out bytes.Buffer
	if run([]string{"__complete", "profile", "explain", ""}, &out, &out); !strings.Contains(out.String(), "redis\tof the store") {
		t.Errorf("completion: %s", out.String())
	}
}
