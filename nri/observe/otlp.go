package observe

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/log"
	sdk "go.opentelemetry.io/otel/sdk/log"
	"go.opentelemetry.io/otel/sdk/resource"
)

// OTLP sends findings to a collector as OTLP logs over HTTP, with the fields of
// the JSON lines as attributes and the message as body.
type OTLP struct {
	provider      *sdk.LoggerProvider
	logger        log.Logger
	direct        *direct
	node, version string
}

// NewOTLP makes a sink for the collector at a URL, as http://collector:4318. The
// OTEL_EXPORTER_OTLP_* variables of the environment hold for headers and
// certificates.
func NewOTLP(ctx context.Context, url, node, version string) (*OTLP, error) {
	exporter, err := otlploghttp.New(ctx, otlploghttp.WithEndpointURL(url+"/v1/logs"), otlploghttp.WithTimeout(5*time.Second),
		otlploghttp.WithRetry(otlploghttp.RetryConfig{
			Enabled: true, InitialInterval: 500 * time.Millisecond, MaxInterval: 5 * time.Second, MaxElapsedTime: 15 * time.Second,
		}))
	if err != nil {
		return nil, err
	}
	d := &direct{exporter: exporter}
	res := resource.NewSchemaless(attribute.String("service.name", "stockade"), attribute.String("service.version", version),
		attribute.String("host.name", node), attribute.String("k8s.node.name", node))
	p := sdk.NewLoggerProvider(sdk.WithProcessor(d), sdk.WithResource(res))
	return &OTLP{provider: p, logger: p.Logger("github.com/stockade-dev/stockade/nri/observe"), direct: d, node: node, version: version}, nil
}

// Name is that of the sink.
func (*OTLP) Name() string { return "otlp" }

// Put sends one finding.
func (o *OTLP) Put(ctx context.Context, f Finding) error {
	fields := OCSF(f, o.node, o.version)
	var r log.Record
	r.SetTimestamp(f.Time())
	r.SetObservedTimestamp(time.Now())
	r.SetEventName("stockade.finding")
	r.SetBody(attribute.StringValue(fmt.Sprint(fields["message"])))
	r.SetSeverity(log.SeverityWarn)
	r.SetSeverityText(fmt.Sprint(fields["severity"]))
	for k, v := range fields {
		r.AddAttributes(attribute.KeyValue{Key: attribute.Key(k), Value: value(v)})
	}
	o.direct.err = nil
	o.logger.Emit(ctx, r)
	return o.direct.err
}

// Close ends the connection.
func (o *OTLP) Close(ctx context.Context) { _ = o.provider.Shutdown(ctx) }

// direct hands each record to the exporter at once and keeps what it said: the
// queue stands before the sink, and what is lost must be counted. It is used by
// one goroutine.
type direct struct {
	exporter sdk.Exporter
	err      error
}

func (d *direct) Enabled(context.Context, sdk.EnabledParameters) bool { return true }

func (d *direct) OnEmit(ctx context.Context, r *sdk.Record) error {
	d.err = d.exporter.Export(ctx, []sdk.Record{*r})
	return nil
}

func (d *direct) Shutdown(ctx context.Context) error   { return d.exporter.Shutdown(ctx) }
func (d *direct) ForceFlush(ctx context.Context) error { return d.exporter.ForceFlush(ctx) }

// value is an OCSF value as a log's.
func value(v any) attribute.Value {
	switch v := v.(type) {
	case string:
		return attribute.StringValue(v)
	case int:
		return attribute.IntValue(v)
	case int64:
		return attribute.Int64Value(v)
	case bool:
		return attribute.BoolValue(v)
	case []any:
		var out []attribute.Value
		for _, e := range v {
			out = append(out, value(e))
		}
		return attribute.SliceValue(out...)
	case object:
		var out []attribute.KeyValue
		for k, e := range v {
			out = append(out, attribute.KeyValue{Key: attribute.Key(k), Value: value(e)})
		}
		return attribute.MapValue(out...)
	}
	return attribute.StringValue(fmt.Sprint(v))
}
