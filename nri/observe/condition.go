package observe

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/stockade-dev/stockade/nri/health"
	"github.com/stockade-dev/stockade/shim/incident"
)

// ConditionType is the node condition that says whether Stockade is as it should
// be on a node.
const ConditionType corev1.NodeConditionType = "StockadeReady"

// Heartbeat is how often the condition is written when nothing changes. A
// heartbeat that is older than a few of them means that the plugin was killed or
// hangs, whatever the status says.
const Heartbeat = time.Minute

// Condition writes the node's condition.
type Condition struct {
	Client kubernetes.Interface
	Node   string
	Health func() health.Health
	Wrote  func(time.Time) // told of each success; may be nil
	Log    logrus.FieldLogger
}

// Run writes until ctx ends, and then that the plugin has ended.
func (c *Condition) Run(ctx context.Context) {
	last := corev1.NodeCondition{}
	var at time.Time
	said := false
	for {
		now := Judge(c.Health())
		if !same(now, last) || time.Since(at) >= Heartbeat {
			if err := c.write(ctx, now); err == nil {
				last, at, said = now, time.Now(), false
			} else if ctx.Err() == nil {
				if !said {
					c.Log.WithError(err).Warn("stockade-nri: the node's condition StockadeReady cannot be written; it is tried again")
					said = true
				}
				sleep(ctx, 10*time.Second)
			}
		}
		if !sleep(ctx, time.Second) {
			break
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closing)
	defer cancel()
	if err := c.write(ctx, corev1.NodeCondition{
		Status: corev1.ConditionFalse, Reason: "PluginStopped",
		Message: "stockade-nri has ended; containers that run stay protected",
	}); err != nil {
		c.Log.WithError(err).Warn("stockade-nri: the node's condition does not say that the plugin has ended")
	}
}

// Judge says what the condition is.
func Judge(h health.Health) corev1.NodeCondition {
	c := corev1.NodeCondition{Status: corev1.ConditionTrue, Reason: "Ready"}
	text, ok := health.Verdict(h, nil, h.Time)
	c.Message = text
	switch {
	case !h.Connected:
		c.Status, c.Reason = corev1.ConditionFalse, "NotConnected"
	case !ok:
		c.Status, c.Reason = corev1.ConditionFalse, "Problem"
	case len(h.Unprotected) > 0:
		u := h.Unprotected[0]
		c.Status, c.Reason = corev1.ConditionFalse, "Unprotected"
		c.Message = fmt.Sprintf("%d containers run unprotected, one of them %s of pod %s/%s: %s", len(h.Unprotected), u.Name, u.Namespace, u.Pod, u.Why)
	case len(h.Reloads) > 0:
		c.Status, c.Reason = corev1.ConditionFalse, "ReloadFailed"
		c.Message = fmt.Sprintf("%d containers keep an older profile", len(h.Reloads))
	}
	c.Message = shorten(incident.Safe(strings.TrimSpace(c.Message)), eventNote)
	return c
}

func same(a, b corev1.NodeCondition) bool {
	return a.Status == b.Status && a.Reason == b.Reason && a.Message == b.Message
}

// write patches this one condition; the others are merged by type and stay.
func (c *Condition) write(ctx context.Context, now corev1.NodeCondition) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	node, err := c.Client.CoreV1().Nodes().Get(ctx, c.Node, metav1.GetOptions{})
	if err != nil {
		return err
	}
	at := time.Now()
	now.Type, now.LastHeartbeatTime, now.LastTransitionTime = ConditionType, metav1.NewTime(at), metav1.NewTime(at)
	for _, old := range node.Status.Conditions {
		if old.Type == ConditionType && old.Status == now.Status {
			now.LastTransitionTime = old.LastTransitionTime
		}
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": []corev1.NodeCondition{now}}})
	if err != nil {
		return err
	}
	_, err = c.Client.CoreV1().Nodes().Patch(ctx, c.Node, types.StrategicMergePatchType, patch, metav1.PatchOptions{FieldManager: Component}, "status")
	if err == nil && c.Wrote != nil {
		c.Wrote(at)
	}
	return err
}
