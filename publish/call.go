package publish

import (
	"net/http"
	"time"
)

// A Call is one request to a service, as a target's journal has it: no header, no
// signature, no secret.
type Call struct {
	Time       time.Time `json:"time"`
	Method     string    `json:"method"`
	Host       string    `json:"host"`
	Path       string    `json:"path"`
	Query      string    `json:"query,omitempty"` // the name of its first parameter, such as uploads or prefix
	SentBytes  int64     `json:"sent_bytes"`      // of the body, as announced
	Status     int       `json:"status,omitempty"`
	DurationMS int64     `json:"duration_ms"` // until the answer's header
}

// NewCall returns what a journal has of a request that began then and of its answer, nil
// if there was none.
func NewCall(r *http.Request, resp *http.Response, begun time.Time) Call {
	c := Call{
		Time: begun.UTC(), Method: r.Method, Host: r.URL.Host, Path: r.URL.Path,
		SentBytes: max(r.ContentLength, 0), DurationMS: time.Since(begun).Milliseconds(),
	}
	for name := range r.URL.Query() {
		if c.Query == "" || name < c.Query {
			c.Query = name
		}
	}
	if resp != nil {
		c.Status = resp.StatusCode
	}
	return c
}
