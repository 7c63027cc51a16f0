package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"time"
)

// serviceRange is that of services; the first address of it is the API server's own.
const (
	serviceRange = "10.97.0.0/24"
	serviceFirst = "10.97.0.1"
)

// authority signs the certificates of a cluster. Its key is in memory only.
type authority struct {
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	serial int64
}

// identity is a certificate to make. The user of a client certificate is its common name, the groups its organisations.
type identity struct {
	name   string // of the files
	user   string
	groups []string
	server bool
	client bool
	names  []string
	ips    []net.IP
}

func (c *Cluster) writePKI() error {
	ca, err := newAuthority()
	if err != nil {
		return err
	}
	if err := writePEM(c.files.cert("ca"), "CERTIFICATE", ca.cert.Raw); err != nil {
		return err
	}
	local := net.IPv4(127, 0, 0, 1)
	for _, id := range []identity{
		{name: "etcd", user: "etcd", server: true, client: true, names: []string{"localhost"}, ips: []net.IP{local}},
		{
			name: "apiserver", user: "kube-apiserver", server: true, ips: []net.IP{local, net.ParseIP(serviceFirst)},
			names: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"},
		},
		{name: "kubelet", user: c.NodeName, server: true, names: []string{c.NodeName}, ips: []net.IP{c.nodeIP}},
		{name: "kubelet-client", user: "kube-apiserver-kubelet-client", groups: []string{"system:masters"}, client: true},
		{name: "admin", user: "admin", groups: []string{"system:masters"}, client: true},
		{name: "node", user: "system:node:" + c.NodeName, groups: []string{"system:nodes"}, client: true},
		{name: "scheduler", user: "system:kube-scheduler", client: true},
	} {
		if err := c.issue(ca, id); err != nil {
			return err
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	return writeKey(c.files.key("service-account"), key)
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	a := &authority{key: key, serial: 1}
	t := a.template("stockade test cluster")
	t.IsCA, t.BasicConstraintsValid, t.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	a.cert, err = x509.ParseCertificate(der)
	return a, err
}

func (a *authority) template(user string) *x509.Certificate {
	a.serial++
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(a.serial),
		Subject:      pkix.Name{CommonName: user},
		NotBefore:    now.Add(-time.Hour), // a clock that is set back a little must not end the cluster
		NotAfter:     now.AddDate(1, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
}

func (c *Cluster) issue(ca *authority, id identity) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	t := ca.template(id.user)
	t.Subject.Organization, t.DNSNames, t.IPAddresses = id.groups, id.names, id.ips
	if id.server {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if id.client {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	der, err := x509.CreateCertificate(rand.Reader, t, ca.cert, key.Public(), ca.key)
	if err != nil {
		return err
	}
	if err := writePEM(c.files.cert(id.name), "CERTIFICATE", der); err != nil {
		return err
	}
	return writeKey(c.files.key(id.name), key)
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(path, "EC PRIVATE KEY", der)
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
