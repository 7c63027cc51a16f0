// Package cri tests pods: containerd's CRI with Stockade's runtime handler and its NRI plugin, without a kubelet.
package cri
