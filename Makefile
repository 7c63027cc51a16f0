# Stockade's build. `make` prints what there is; everything works in a fresh clone on Debian 12 with Go, gcc, git,
# make and root, and writes nothing outside the checkout but the packages of `make deps` and (while containers run)
# cgroups and sockets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

CACHE := $(CURDIR)/.cache
TOOLS := $(CACHE)/bin
THIRDPARTY := integration/thirdparty

# -buildvcs=false: Go's own stamp fails the build where git does not trust the folder's owner; the version is set below.
export GOFLAGS := -buildvcs=false
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
# glibc's resolver and user database cannot be linked statically: Go's own are used instead.
STATIC := -trimpath -tags "netgo osusergo" -ldflags '$(LDFLAGS) -linkmode external -extldflags "-static"'
PURE := -trimpath -ldflags '$(LDFLAGS)'
# The guard is small on purpose and needs no libseccomp.
PURE_CMDS := $(patsubst %/main.go,./%,$(wildcard cmd/stockade-guard/main.go))
CGO_CMDS := $(filter-out $(PURE_CMDS),$(patsubst %/main.go,./%,$(wildcard cmd/*/main.go)))
K8S := $(CACHE)/kubernetes/bin
K8S_BINS := $(addprefix $(K8S)/,etcd kube-apiserver kube-scheduler kubelet kubectl loopback)
ARM64 := $(CACHE)/arm64/root/usr
ARM64_CC := CC=aarch64-linux-gnu-gcc CGO_CFLAGS=-I$(ARM64)/include CGO_LDFLAGS=-L$(ARM64)/lib/aarch64-linux-gnu \
  PKG_CONFIG_LIBDIR=$(ARM64)/lib/aarch64-linux-gnu/pkgconfig

# Packages that the build needs; `make deps` installs what is missing.
BUILD_DEPS := gcc libc6-dev libseccomp-dev pkgconf
VM_DEPS := qemu-system-x86 xz-utils
ARM64_DEPS := gcc-aarch64-linux-gnu libc6-dev-arm64-cross

# What `make test` runs. Integration packages run one after the other: they measure and they load the machine.
RUN ?=
SUITES := kubernetes vm
UNIT = $(shell go list ./... | grep -v /integration)
INTEGRATION ?= ./integration/...
GOTEST := go test -v -count=1 $(if $(RUN),-run '$(RUN)')

help: ## print this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

deps: ## install the Debian packages that the build needs, only those that are missing
	@$(call apt-install,$(BUILD_DEPS))

build: deps bin/containerd ## build bin/: the shim, the guard, the CLI (static), with containerd, ctr and runc beside them
	$(if $(CGO_CMDS),CGO_ENABLED=1 go build $(STATIC) -o bin/ $(CGO_CMDS))
	$(if $(PURE_CMDS),CGO_ENABLED=0 go build $(PURE) -o bin/ $(PURE_CMDS))

build-arm64: $(CACHE)/arm64/root ## cross-build bin/arm64/ (compiler from Debian, libseccomp unpacked under .cache)
	@$(call apt-install,$(ARM64_DEPS))
	$(if $(CGO_CMDS),GOARCH=arm64 CGO_ENABLED=1 $(ARM64_CC) go build $(STATIC) -o bin/arm64/ $(CGO_CMDS))
	$(if $(PURE_CMDS),GOARCH=arm64 CGO_ENABLED=0 go build $(PURE) -o bin/arm64/ $(PURE_CMDS))

generate: $(TOOLS)/controller-gen ## write again what is generated: the Profile resource's CRD and deep copies
	$(TOOLS)/controller-gen object crd paths=./nri/v1alpha1 output:crd:dir=contrib/kubernetes/crd

test: build $(TOOLS)/controller-gen $(TOOLS)/render $(TOOLS)/containerd-2.0 ## run every test, on a real containerd of its own [RUN=regexp, INTEGRATION=./integration]
	@rc=0; $(GOTEST) $(UNIT) || rc=1; \
	$(GOTEST) -p 1 -timeout 40m $(INTEGRATION) || rc=1; exit $$rc

# Parts of the matrix: see the package's documentation (go doc ./integration/vm).
test-vm: build ## run the tests on Debian's kernels, in QEMU [KERNEL=6.1, SCENARIOS=regexp, SUITE=shim/lsm ARGS=-test.run=...]
	@$(call apt-install,$(VM_DEPS))
	$(foreach v,KERNEL SUITE ARGS SCENARIOS CONTROLS,$(if $($v),STOCKADE_VM_$v='$($v)')) $(GOTEST) -tags vm -timeout 70m ./integration/vm

test-kubernetes: image $(K8S_BINS) $(TOOLS)/render $(TOOLS)/helm ## run the tests in a cluster: etcd, kube-apiserver, kubelet, all private (build tag "kubernetes") [RUN=regexp]
	$(GOTEST) -tags kubernetes -p 1 -timeout 15m ./integration/kubernetes/...

image: build ## build the image that contrib/kubernetes runs on each node: bin/stockade-image.tar, an OCI layout [IMAGE=name:tag]
	go run ./integration/nodeimage $(if $(IMAGE),-name '$(IMAGE)')

lint: deps $(TOOLS)/staticcheck ## gofumpt, go vet, staticcheck
	@f=$$($(TOOLS)/gofumpt -l $(wildcard cmd shim profiles nri integration contrib)); \
	if [ -n "$$f" ]; then echo "not formatted by gofumpt:"; echo "$$f"; exit 1; fi
	go vet ./...
	go vet -tags '$(SUITES)' ./integration/...
	$(TOOLS)/staticcheck ./...
	$(TOOLS)/staticcheck -tags '$(SUITES)' ./integration/...

demo: build ## show Stockade at work: a container that deviates, killed, with its incident
	go run ./integration/demo

bench: build ## measure against plain runc, in one run
	go run ./integration/bench

node: build ## start a private containerd with Stockade in .node/ and leave it running
	go run ./integration/nodectl up

node-down: ## stop it, and everything that runs on it
	go run ./integration/nodectl down

cluster: image $(K8S_BINS) ## start a private Kubernetes node in .cluster/ and leave it running
	go run ./integration/nodectl cluster

cluster-down: ## stop it, and everything that runs on it
	go run ./integration/nodectl cluster-down

clean: ## stop what still runs of this checkout; remove bin/, .node/, .cluster/ and .work/ (.cache stays: it is the offline store)
	@if [ -d .node ] || [ -d .cluster ] || [ -d .work ]; then go run ./integration/nodectl clean; fi
	rm -rf bin .node .cluster .work

.PHONY: help deps build build-arm64 generate image test test-vm test-kubernetes kubernetes lint demo bench node node-down cluster cluster-down clean

# $(call apt-install,packages): installs those of them that are missing. The lists are fetched only when they turn out
# to be absent or stale. Nothing asks, and nothing that these packages bring is a service.
define apt-install
missing=; for p in $(1); do \
  dpkg-query -W -f='$${db:Status-Status}' $$p 2>/dev/null | grep -qx installed || missing="$$missing $$p"; done; \
if [ -n "$$missing" ]; then export DEBIAN_FRONTEND=noninteractive; echo "installing$$missing"; \
  apt-get install -y -q --no-install-recommends $$missing </dev/null || \
  { apt-get update -q </dev/null && apt-get install -y -q --no-install-recommends $$missing </dev/null; }; fi
endef

# Third-party programs are pinned by their own modules and built again only when these change.
bin/containerd: $(TOOLS)/containerd $(TOOLS)/runc
	@mkdir -p bin
	@ln -sf $(addprefix ../.cache/bin/,containerd containerd-shim-runc-v2 ctr runc) bin/

$(TOOLS)/containerd: $(THIRDPARTY)/containerd/go.mod $(THIRDPARTY)/containerd/go.sum
	@mkdir -p $(TOOLS)
	cd $(THIRDPARTY)/containerd && CGO_ENABLED=0 go build -trimpath -tags "no_btrfs no_zfs no_devmapper" -o $(TOOLS)/ \
	  $(addprefix github.com/containerd/containerd/v2/cmd/,containerd ctr containerd-shim-runc-v2)
	@touch $@

# The oldest that is tested: it starts shims as 2.1 and 2.2 do, and its NRI is theirs or older.
$(TOOLS)/containerd-2.0: $(THIRDPARTY)/containerd-2.0/go.mod $(THIRDPARTY)/containerd-2.0/go.sum
	@mkdir -p $(TOOLS)
	cd $(THIRDPARTY)/containerd-2.0 && CGO_ENABLED=0 go build -trimpath -tags "no_btrfs no_zfs no_devmapper" -o $@ \
	  github.com/containerd/containerd/v2/cmd/containerd
	@touch $@

$(TOOLS)/runc: $(THIRDPARTY)/runc/go.mod $(THIRDPARTY)/runc/go.sum | deps
	@mkdir -p $(TOOLS)
	cd $(THIRDPARTY)/runc && CGO_ENABLED=1 go build -trimpath -tags "seccomp netgo osusergo" \
	  -ldflags '-s -w -linkmode external -extldflags "-static"' -o $(TOOLS)/runc github.com/opencontainers/runc
	@touch $@

# Kubernetes' programs say the version that is stamped into them: without that it is v0.0.0-master.
# One at a time, and nice: each takes up to 3 GB and two minutes.
K8S_VERSION = $(shell sed -n 's|^\tk8s.io/kubernetes \(v[0-9.]*\).*|\1|p' $(THIRDPARTY)/kubernetes/go.mod)
K8S_STAMP = -X k8s.io/component-base/version.gitVersion=$(K8S_VERSION) -X k8s.io/client-go/pkg/version.gitVersion=$(K8S_VERSION) \
  $(shell echo $(K8S_VERSION) | sed 's|^v\([0-9]*\)\.\([0-9]*\).*|-X k8s.io/component-base/version.gitMajor=\1 -X k8s.io/component-base/version.gitMinor=\2|')
K8S_BUILD = mkdir -p $(K8S); cd $(THIRDPARTY)/kubernetes && \
  CGO_ENABLED=0 nice -n 10 go build -p 2 -trimpath -ldflags '-s -w $(K8S_STAMP)' -o $@
K8S_PIN := $(THIRDPARTY)/kubernetes/go.mod $(THIRDPARTY)/kubernetes/go.sum

kubernetes: $(K8S_BINS)
$(K8S)/etcd: $(K8S_PIN)
	$(K8S_BUILD) go.etcd.io/etcd/server/v3
	@touch $@
$(K8S)/loopback: $(K8S_PIN)
	$(K8S_BUILD) github.com/containernetworking/plugins/plugins/main/loopback
	@touch $@
$(filter-out %/etcd %/loopback,$(K8S_BINS)): $(K8S)/%: $(K8S_PIN) | $(K8S)/etcd
	$(K8S_BUILD) k8s.io/kubernetes/cmd/$*
	@touch $@

$(TOOLS)/staticcheck: $(THIRDPARTY)/lint/go.mod $(THIRDPARTY)/lint/go.sum
	@mkdir -p $(TOOLS)
	cd $(THIRDPARTY)/lint && CGO_ENABLED=0 go build -trimpath -o $(TOOLS)/ honnef.co/go/tools/cmd/staticcheck mvdan.cc/gofumpt
	@touch $@

$(TOOLS)/render: $(THIRDPARTY)/render/go.mod $(THIRDPARTY)/render/go.sum $(THIRDPARTY)/render/main.go
	@mkdir -p $(TOOLS)
	cd $(THIRDPARTY)/render && CGO_ENABLED=0 go build -trimpath -o $@ .
	@touch $@

$(TOOLS)/helm: $(THIRDPARTY)/helm/go.mod $(THIRDPARTY)/helm/go.sum
	@mkdir -p $(TOOLS)
	cd $(THIRDPARTY)/helm && CGO_ENABLED=0 nice -n 10 go build -p 2 -trimpath -ldflags '-s -w' -o $@ helm.sh/helm/v4/cmd/helm
	@touch $@

$(TOOLS)/controller-gen: $(THIRDPARTY)/crd/go.mod $(THIRDPARTY)/crd/go.sum
	@mkdir -p $(TOOLS)
	cd $(THIRDPARTY)/crd && CGO_ENABLED=0 go build -trimpath -o $@ sigs.k8s.io/controller-tools/cmd/controller-gen
	@touch $@

# arm64's libseccomp, unpacked from its Debian package with package lists of its own: the machine's dpkg learns no
# second architecture.
ARM64_APT := -q -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State=$(CACHE)/arm64/state \
  -o Dir::State::status=$(CACHE)/arm64/state/status -o Dir::Cache=$(CACHE)/arm64/cache -o APT::Sandbox::User=root \
  -o Acquire::Languages=none
$(CACHE)/arm64/root:
	@mkdir -p $(CACHE)/arm64/state/lists/partial $(CACHE)/arm64/cache/archives/partial; : >$(CACHE)/arm64/state/status
	cd $(CACHE)/arm64/cache && { apt-get $(ARM64_APT) update; apt-get $(ARM64_APT) download libseccomp-dev; } </dev/null
	dpkg -x $(CACHE)/arm64/cache/libseccomp-dev_*_arm64.deb $@
