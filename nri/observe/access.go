package observe

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/time/rate"
	authentication "k8s.io/api/authentication/v1"
	authorization "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Access lets those read metrics who show a token of the cluster whose owner may `get` the path (a ClusterRole with
// nonResourceURLs), as the API server says. What it said is remembered for a while; how often it is asked is bounded,
// since anybody may ask us: for each address, so that one pod cannot use up what there is for all, and for all
// together. A token that was good is asked about again out of a budget of its own, whoever else is asking.
type Access struct {
	client kubernetes.Interface
	log    logrus.FieldLogger
	asks   *rate.Limiter // about tokens that are not known to be good
	again  *rate.Limiter // about those that were

	mu    sync.Mutex
	peers map[string]*rate.Limiter // by address; guarded by mu
	// Kept apart, so that who has no good token cannot push out what is known of one. Guarded by mu.
	good, bad map[[sha256.Size]byte]answer
}

// answer is an HTTP status, and until when it holds.
type answer struct {
	status int
	until  time.Time
}

const (
	maxToken    = 16 << 10 // bytes
	maxSaid     = 1024     // of each kind
	maxPeers    = 1024
	rememberYes = time.Minute
	rememberNo  = 10 * time.Second
)

// NewAccess asks with client.
func NewAccess(client kubernetes.Interface, log logrus.FieldLogger) *Access {
	return &Access{
		client: client, log: log, asks: rate.NewLimiter(10, 20), again: rate.NewLimiter(10, 20),
		peers: map[string]*rate.Limiter{}, good: map[[sha256.Size]byte]answer{}, bad: map[[sha256.Size]byte]answer{},
	}
}

// Guard stands before a handler. /healthz says nothing and is open.
func (a *Access) Guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" {
			next.ServeHTTP(w, r)
			return
		}
		if status := a.judge(r); status != http.StatusOK {
			if status == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", "Bearer")
			}
			http.Error(w, http.StatusText(status), status)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (a *Access) judge(r *http.Request) int {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if token = strings.TrimSpace(token); !ok || token == "" || len(token) > maxToken {
		return http.StatusUnauthorized
	}
	key := sha256.Sum256([]byte(r.URL.Path + "\x00" + token))
	now := time.Now()
	known, wasGood := a.known(key)
	if now.Before(known.until) {
		return known.status
	}
	if !a.mayAsk(r.RemoteAddr, wasGood) {
		return http.StatusTooManyRequests
	}
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	status, err := a.ask(ctx, token, r.URL.Path)
	if err != nil {
		a.log.WithError(err).Warn("stockade-nri: who may read metrics cannot be asked")
		return http.StatusServiceUnavailable
	}
	a.remember(key, status, now)
	return status
}

// known is what was said of a token the last time, and whether that was good. It may not hold any more.
func (a *Access) known(key [sha256.Size]byte) (answer, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if known, ok := a.good[key]; ok {
		return known, true
	}
	return a.bad[key], false
}

// mayAsk takes from the budgets. A peer's own comes first: who has none left takes nothing from the others.
func (a *Access) mayAsk(remote string, wasGood bool) bool {
	if wasGood {
		return a.again.Allow()
	}
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	a.mu.Lock()
	peer := a.peers[host]
	if peer == nil {
		if len(a.peers) >= maxPeers {
			clear(a.peers) // asks bounds all of them still
		}
		peer = rate.NewLimiter(1, 5)
		a.peers[host] = peer
	}
	a.mu.Unlock()
	return peer.Allow() && a.asks.Allow()
}

func (a *Access) remember(key [sha256.Size]byte, status int, now time.Time) {
	said, until := a.bad, now.Add(rememberNo)
	if status == http.StatusOK {
		said, until = a.good, now.Add(rememberYes)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.good, key)
	delete(a.bad, key)
	if len(said) >= maxSaid {
		clear(said)
	}
	said[key] = answer{status, until}
}

func (a *Access) ask(ctx context.Context, token, path string) (int, error) {
	review, err := a.client.AuthenticationV1().TokenReviews().Create(ctx,
		&authentication.TokenReview{Spec: authentication.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
	if err != nil {
		return 0, err
	}
	if !review.Status.Authenticated {
		return http.StatusUnauthorized, nil
	}
	user := review.Status.User
	extra := map[string]authorization.ExtraValue{}
	for k, v := range user.Extra {
		extra[k] = authorization.ExtraValue(v)
	}
	allowed, err := a.client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorization.SubjectAccessReview{
		Spec: authorization.SubjectAccessReviewSpec{
			User: user.Username, UID: user.UID, Groups: user.Groups, Extra: extra,
			NonResourceAttributes: &authorization.NonResourceAttributes{Path: path, Verb: "get"},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return 0, err
	}
	if !allowed.Status.Allowed {
		return http.StatusForbidden, nil
	}
	return http.StatusOK, nil
}

// SelfSigned is TLS with a certificate of its own, made now: nobody can read along, but who we are is not shown by it.
func SelfSigned(name string) (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	text := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "stockade-nri"}, DNSNames: []string{name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(10, 0, 0), // longer than any process lives
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, text, text, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}, nil
}
