package rest

import (
	"context"
	"fmt"
	"net/http"

	"golang.org/x/sync/semaphore"
)

const (
	// freeAnswer is the size up to which an answer takes memory without asking: most are
	// small, and they are as many as there are calls.
	freeAnswer = 1 << 20
	// perItem is what an item of a list takes besides its source.
	perItem = 256
)

// answers bounds the memory of long answers that are being put together and sent. Nothing
// is waited for by who holds some of it already.
type answers struct {
	memory *semaphore.Weighted
	// most is the largest answer, which is reserved until its size is known.
	most int64
}

func newAnswers(size int64) *answers {
	return &answers{memory: semaphore.NewWeighted(size), most: size / 2}
}

// held is what one answer holds.
type held struct {
	*answers

	bytes int64
}

func (a *answers) begin() *held { return &held{answers: a} }

// grow makes sure that the answer may take so many bytes.
func (h *held) grow(ctx context.Context, size int64) error {
	switch {
	case size > h.most:
		return tooLong(h.most)
	case size <= freeAnswer || h.bytes > 0:
		return nil
	}
	if err := h.memory.Acquire(ctx, h.most); err != nil {
		return ended()
	}
	h.bytes = h.most
	return nil
}

// shrink gives back what the answer does not take: it has its last size.
func (h *held) shrink(size int64) {
	if rest := h.bytes - size; h.bytes > 0 && rest > 0 {
		h.memory.Release(rest)
		h.bytes -= rest
	}
}

// end gives everything back.
func (h *held) end() {
	h.memory.Release(h.bytes)
	h.bytes = 0
}

func tooLong(most int64) *problem {
	p := unreadable()
	p.Message = fmt.Sprintf("The answer is longer than %d MiB, which is the most that this API sends.", most>>20)
	return p
}

// ended is the failure of a call whose caller is gone.
func ended() *problem {
	return &problem{status: http.StatusServiceUnavailable, Code: "UNAVAILABLE", Message: "The call has ended."}
}
