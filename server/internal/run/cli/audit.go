package cli

import (
	"context"
	"io"
	"strconv"
	"strings"
	"time"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

// Audit are the commands about the audit.
type Audit struct {
	List auditList `cmd:"" help:"List the calls that change something for operators, and those that were refused, with their callers, newest first."`
}

type auditList struct {
	Method      string `name:"method" placeholder:"RPC" help:"Only calls of this RPC, such as PauseProject."`
	Caller      string `name:"caller" placeholder:"NAME" help:"Only calls of this caller, such as the id of a key."`
	Denied      bool   `name:"denied" xor:"sort" help:"Only refused calls."`
	Performed   bool   `name:"performed" xor:"sort" help:"Only calls that were not refused."`
	ServiceWide bool   `name:"service-wide" help:"The refused calls that are of no single one of several projects, instead of those of a project."`
	Since       string `name:"since" placeholder:"WHEN" help:"Only calls since then: a duration such as 24h, a date or a time."`
	Until       string `name:"until" placeholder:"WHEN" help:"Only calls before then."`
	Limit       int    `name:"limit" default:"50" help:"Maximum number of entries. 0 lists all."`

	Call
}

// Run lists entries of the audit.
func (c *auditList) Run(ctx context.Context, std Streams) error {
	span := EventFilter{Since: c.Since, Until: c.Until}
	since, until, err := span.span(time.Now())
	if err != nil {
		return err
	}
	var denied *bool
	if c.Denied || c.Performed {
		denied = &c.Denied
	}
	return within(ctx, &c.Call, std, 0, func(ctx context.Context, s *service) (*mirrorv1.ListAuditEntriesResponse, error) {
		return collect(ctx, c.Limit, func(p *mirrorv1.ListAuditEntriesResponse) int { return len(p.GetAuditEntries()) },
			func(ctx context.Context, size int32, token string) (*mirrorv1.ListAuditEntriesResponse, error) {
				return s.ListAuditEntries(ctx, &mirrorv1.ListAuditEntriesRequest{
					ProjectId: s.project, ServiceWide: c.ServiceWide, Method: c.Method, Caller: c.Caller, Denied: denied,
					StartTime: since, EndTime: until, PageSize: size, PageToken: token,
				})
			})
	}, func(w io.Writer, list *mirrorv1.ListAuditEntriesResponse) {
		rows := make([][]string, len(list.GetAuditEntries()))
		for i, e := range list.GetAuditEntries() {
			what, result := e.GetMethod(), e.GetCode()
			switch {
			case e.GetDenied():
				what, result = strings.TrimSpace("refused "+e.GetMethod()), e.GetReason()
			case e.GetReason() != "":
				result = e.GetReason()
			}
			rows[i] = []string{
				at(e.GetStartTime()), what, e.GetOptions(), e.GetRoomId(), e.GetCaller(), e.GetAddress(), result,
				strconv.FormatInt(e.GetCalls(), 10),
			}
		}
		table(w, "BEGAN | CALL | OPTIONS | ROOM | CALLER | ADDRESS | RESULT | CALLS", rows)
		more(std, list)
	})
}
