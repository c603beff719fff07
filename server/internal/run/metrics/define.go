package metrics

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// Definition describes a metric.
type Definition struct {
	Name string
	// Type is counter, gauge or histogram.
	Type   string
	Labels []string
	// Help says what it counts or measures, in Markdown.
	Help string
}

// The types of metrics.
const (
	counter   = "counter"
	gauge     = "gauge"
	histogram = "histogram"
)

// definer makes metrics, and keeps their definitions for the documentation.
type definer struct {
	registry    *prometheus.Registry
	definitions []Definition
}

// note keeps a definition, and returns the help text as Prometheus has it.
func (d *definer) note(kind, name, help string, labels []string) string {
	d.definitions = append(d.definitions, Definition{Name: name, Type: kind, Labels: labels, Help: help})
	return strings.ReplaceAll(help, "`", "")
}

func (d *definer) counter(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: d.note(counter, name, help, labels)}, labels)
	d.registry.MustRegister(c)
	return c
}

func (d *definer) gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: d.note(gauge, name, help, labels)}, labels)
	d.registry.MustRegister(g)
	return g
}

func (d *definer) histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: name, Help: d.note(histogram, name, help, labels), Buckets: buckets,
	}, labels)
	d.registry.MustRegister(h)
	return h
}

// read defines a metric whose values are read from memory at each scrape: read passes
// each of them to emit, with the values of the labels.
func (d *definer) read(kind, name, help string, labels []string, read func(emit func(v float64, labels ...string))) {
	t := prometheus.GaugeValue
	if kind == counter {
		t = prometheus.CounterValue
	}
	d.registry.MustRegister(reader{
		desc: prometheus.NewDesc(name, d.note(kind, name, help, labels), labels, nil), kind: t, read: read,
	})
}

// reader is a metric that is read at each scrape.
type reader struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(emit func(v float64, labels ...string))
}

// Describe is part of [prometheus.Collector].
func (r reader) Describe(ch chan<- *prometheus.Desc) { ch <- r.desc }

// Collect is part of [prometheus.Collector].
func (r reader) Collect(ch chan<- prometheus.Metric) {
	r.read(func(v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(r.desc, r.kind, v, labels...)
	})
}
