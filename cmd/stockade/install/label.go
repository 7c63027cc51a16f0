package install

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// ReadyLabel is on nodes where pods of the runtime class can run; the RuntimeClass's nodeSelector asks for it.
const ReadyLabel = "stockade.dev/ready"

// podAccount is where kubelet mounts a pod's service account.
var podAccount = "/var/run/secrets/kubernetes.io/serviceaccount"

// LabelNode sets or removes the label through the API server, as the pod's service account. A JSON merge patch (RFC
// 7386) of that one label is all that it sends.
func LabelNode(ctx context.Context, node string, ready bool) error {
	if err := labelNode(ctx, node, ready); err != nil {
		return fmt.Errorf("label node %s %s=%v: %w", node, ReadyLabel, ready, err)
	}
	return nil
}

func labelNode(ctx context.Context, node string, ready bool) error {
	host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
	if host == "" {
		return errors.New("this is no pod: KUBERNETES_SERVICE_HOST is not set")
	}
	token, err := os.ReadFile(filepath.Join(podAccount, "token"))
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(filepath.Join(podAccount, "ca.crt"))
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return errors.New("ca.crt holds no certificate")
	}
	var value any // null removes it
	if ready {
		value = "true"
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": map[string]any{ReadyLabel: value}}})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	at := "https://" + net.JoinHostPort(host, port) + "/api/v1/nodes/" + url.PathEscape(node) + "?fieldManager=stockade-install"
	req, err := http.NewRequestWithContext(ctx, http.MethodPatch, at, bytes.NewReader(patch))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/merge-patch+json")
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(said)))
	}
	return nil
}
