package rest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	// freeAnswer is the size up to which an answer takes memory without asking: most are
	// small, and they are as many as there are calls.
	freeAnswer = 1 << 20
	// perItem is what an item of a list takes besides its source.
	perItem = 256
	// memoryWait is how long an answer waits for memory.
	memoryWait = 10 * time.Second
)

// answers bounds the memory of long answers that are being put together and sent. Who waits
// for it holds nothing, neither of this memory nor a part of the answer.
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

// errLong means that an answer has become longer than it may be without its memory. What has
// been put together must be given up before it is asked for.
var errLong = errors.New("the answer needs memory")

// fits returns nil if the answer may take so many bytes, and otherwise errLong or a problem.
func (h *held) fits(size int64) error {
	switch {
	case size > h.most:
		return tooLong(h.most)
	case size > freeAnswer && h.bytes == 0:
		return errLong
	default:
		return nil
	}
}

// grow waits, but not for long, until an answer of which nothing is there yet may take so
// many bytes.
func (h *held) grow(ctx context.Context, size int64) error {
	if err := h.fits(size); !errors.Is(err, errLong) {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, memoryWait)
	defer cancel()
	switch err := h.memory.Acquire(wait, h.most); {
	case ctx.Err() != nil:
		if err == nil {
			h.memory.Release(h.most)
		}
		return ended()
	case err != nil:
		return busy()
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

// busy is the failure of a call for which there is no memory.
func busy() *problem {
	return &problem{
		status: http.StatusServiceUnavailable, Code: "UNAVAILABLE", retry: memoryWait,
		Message:    "Other long answers are being sent, and there is no memory for this one now.",
		Suggestion: "Try again in a moment.",
	}
}

// ended is the failure of a call whose caller is gone.
func ended() *problem {
	return &problem{status: http.StatusServiceUnavailable, Code: "UNAVAILABLE", Message: "The call has ended."}
}
