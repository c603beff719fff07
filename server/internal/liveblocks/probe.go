package liveblocks

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"
)

// Probed is what a probe has found.
type Probed struct {
	// Status is the status of the answer, and Message what Liveblocks says about a refusal.
	Status  int
	Message string
	// Listed means that the answer is a list of rooms, as only Liveblocks' API gives it.
	Listed bool
	// Date is the time at the server, in whole seconds; zero if it does not tell.
	Date time.Time
	// Took is how long the answer took.
	Took time.Duration
}

// maxProbed is more than a room has in a list.
const maxProbed = 1 << 20

// Probe asks Liveblocks once for a list of one room, for a diagnosis: it waits for no
// limiter, and tries nothing again. Its error has neither the key nor the URL.
func Probe(ctx context.Context, transport http.RoundTripper, base BaseURL, key Key) (Probed, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base.url+"/v2/rooms?limit=1", http.NoBody)
	if err != nil {
		return Probed{}, errors.New("the request cannot be made") // the cause repeats the URL
	}
	req.Header.Set("Authorization", "Bearer "+*key.secret)
	client := http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	begun := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		if of, ok := errors.AsType[*url.Error](err); ok {
			err = of.Err
		}
		return Probed{}, err
	}
	defer func() { _ = resp.Body.Close() }() // nothing more is read
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxProbed))
	if err != nil {
		return Probed{}, err
	}
	got := Probed{Status: resp.StatusCode, Took: time.Since(begun)}
	got.Date, _ = http.ParseTime(resp.Header.Get("Date")) // zero if it cannot be read
	var answer struct {
		Data    *[]json.RawMessage `json:"data"`
		Message string             `json:"message"`
	}
	if json.Unmarshal(body, &answer) == nil {
		got.Listed, got.Message = got.Status == http.StatusOK && answer.Data != nil, answer.Message
	}
	return got, nil
}
