package gateway

import (
	"net"
	"net/http"
	"strings"

	"google.golang.org/grpc/metadata"
)

// signatureHeaders are what a webhook is signed with, in the two spellings
// senders use. The service decides which it takes; a mix it refuses.
var signatureHeaders = [...]string{
	"Webhook-Id", "Webhook-Timestamp", "Webhook-Signature",
	"Svix-Id", "Svix-Timestamp", "Svix-Signature",
}

// tracingHeaders tie a call to the caller's own records.
var tracingHeaders = [...]string{"X-Request-Id", "Traceparent", "Tracestate"}

// passing maps the headers that become metadata to its keys. grpc-gateway adds
// Authorization and x-forwarded-for (the peer's address) by itself. Nothing
// else passes, Grpc-Metadata-* included: it would be a second way to set any
// of these.
var passing = func() map[string]string {
	m := make(map[string]string)
	for _, name := range append(signatureHeaders[:], tracingHeaders[:]...) {
		m[name] = strings.ToLower(name)
	}
	return m
}()

func matchIncoming(name string) (key string, ok bool) {
	key, ok = passing[name]
	return key, ok
}

// matchOutgoing lets a caller learn the id its call has in the service's log.
// Other header metadata stays inside.
func matchOutgoing(key string) (name string, ok bool) {
	return "X-Request-Id", key == "x-request-id"
}

// webhookMetadata returns what the service gets to see of a delivery's headers,
// or false if one that signs came twice or holds what no metadata may. Joining
// two, or choosing one, would let a proxy and us see different deliveries.
func webhookMetadata(r *http.Request) (metadata.MD, bool) {
	md := make(metadata.MD, 4)
	for _, name := range signatureHeaders {
		switch values := r.Header[name]; {
		case len(values) == 0:
		case len(values) == 1 && printable(values[0]):
			md[passing[name]] = values
		default:
			return nil, false
		}
	}
	// As grpc-gateway tells of other calls.
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil && printable(host) {
		md["x-forwarded-for"] = []string{host}
	}
	return md, true
}

// apiHeader returns the headers of a call that count.
func apiHeader(from http.Header) http.Header {
	to := make(http.Header, 4)
	for _, name := range [...]string{"Authorization", "Grpc-Timeout", "If-None-Match"} {
		if v, ok := from[name]; ok {
			to[name] = v
		}
	}
	for _, name := range tracingHeaders {
		// They go to logs: what is odd is left out.
		if v := from[name]; len(v) == 1 && len(v[0]) <= 512 && printable(v[0]) {
			to[name] = v
		}
	}
	return to
}

// printable reports whether s can be a metadata value.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// Header values that are set often; net/http only reads them.
var (
	nosniff  = []string{"nosniff"}
	noStore  = []string{"no-store"}
	jsonType = []string{"application/json"}
)

// secure sets what every answer carries: a browser must not take a document,
// which users wrote, for anything but what it says it is.
func secure(h http.Header) {
	h["X-Content-Type-Options"] = nosniff
}
