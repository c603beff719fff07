package gateway

import (
	"net"
	"net/http"
	"strings"

	"google.golang.org/grpc/metadata"
)

// signatureHeaders are the signature headers of webhooks, in both spellings. The
// service chooses between them and refuses a mix.
var signatureHeaders = [...]string{
	"Webhook-Id", "Webhook-Timestamp", "Webhook-Signature",
	"Svix-Id", "Svix-Timestamp", "Svix-Signature",
}

// tracingHeaders link a call to the caller's own records.
var tracingHeaders = [...]string{"X-Request-Id", "Traceparent", "Tracestate"}

// passing maps headers to the metadata keys they become. grpc-gateway itself adds
// Authorization and x-forwarded-for (the peer's address). Nothing else passes, not
// even Grpc-Metadata-*, which would be a second way to set these.
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

// matchOutgoing returns the request id to the caller, which identifies the call in
// the service's log. Other header metadata is not sent.
func matchOutgoing(key string) (name string, ok bool) {
	return "X-Request-Id", key == "x-request-id"
}

// webhookMetadata returns the metadata for a delivery's headers, or false if a
// signature header is not valid as metadata. The service sees each value of a
// repeated header: joining or choosing them could make a proxy and the service see
// different deliveries.
func webhookMetadata(r *http.Request) (metadata.MD, bool) {
	md := make(metadata.MD, 4)
	for _, name := range signatureHeaders {
		values := r.Header[name]
		for _, v := range values {
			if !printable(v) {
				return nil, false
			}
		}
		if len(values) > 0 {
			md[passing[name]] = values
		}
	}
	// As grpc-gateway does for other calls.
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil && printable(host) {
		md["x-forwarded-for"] = []string{host}
	}
	return md, true
}

// apiHeader returns the headers that the API reads.
func apiHeader(from http.Header) http.Header {
	to := make(http.Header, 4)
	for _, name := range [...]string{"Authorization", "Grpc-Timeout", "If-None-Match", "Accept", "Last-Event-Id"} {
		if v, ok := from[name]; ok {
			to[name] = v
		}
	}
	for _, name := range tracingHeaders {
		// They appear in logs, so leave out unprintable ones.
		if v := from[name]; len(v) == 1 && len(v[0]) <= 512 && printable(v[0]) {
			to[name] = v
		}
	}
	return to
}

// printable reports whether s is valid as a metadata value.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// Shared header values; net/http only reads them.
var (
	nosniff  = []string{"nosniff"}
	noStore  = []string{"no-store"}
	jsonType = []string{"application/json"}
)

// secure sets the headers of every response. A browser must not treat a document,
// which users wrote, as another type than declared.
func secure(h http.Header) {
	h["X-Content-Type-Options"] = nosniff
}
