package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/net/netutil"
	"k8s.io/client-go/kubernetes"

	"github.com/stockade-dev/stockade/nri"
	"github.com/stockade-dev/stockade/nri/observe"
)

// exposeMetrics serves them until ctx ends, to those who may read them. If who
// that is cannot be asked, to nobody.
func exposeMetrics(ctx context.Context, c nri.Config, handler http.Handler) {
	if c.Metrics == "none" {
		return
	}
	var secured *tls.Config
	if c.MetricsAccess == nri.Token {
		var err error
		if handler, secured, err = guarded(c, handler); err != nil {
			logrus.WithError(err).Error("stockade-nri: metrics are not served")
			return
		}
	}
	expose(ctx, c.Metrics, secured, handler)
}

func guarded(c nri.Config, handler http.Handler) (http.Handler, *tls.Config, error) {
	api, err := reach(c.Kubernetes)
	if err != nil {
		return nil, nil, err
	}
	if api == nil {
		return nil, nil, errors.New("metricsAccess is token, and this is no pod with a service account")
	}
	client, err := kubernetes.NewForConfig(api)
	if err != nil {
		return nil, nil, err
	}
	secured, err := observe.SelfSigned(nodeName(c))
	return observe.NewAccess(client, logrus.StandardLogger()).Guard(handler), secured, err
}

// expose serves metrics until ctx ends. An address that is taken is tried again.
func expose(ctx context.Context, address string, secured *tls.Config, handler http.Handler) {
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10,
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	for said := false; ; said = true {
		l, err := net.Listen("tcp", address)
		if err == nil {
			l = netutil.LimitListener(l, 64)
		}
		if err == nil && secured != nil {
			l = tls.NewListener(l, secured)
		}
		if err == nil {
			err = server.Serve(l)
		}
		if ctx.Err() != nil || errors.Is(err, http.ErrServerClosed) {
			return
		}
		if !said {
			logrus.WithError(err).Error("stockade-nri: metrics are not served; it is tried again")
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(10 * time.Second):
		}
	}
}
