package publishtest_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/publish/publishtest"
)

// Each fault is what it says, to the client and to the server.
func TestProxy(t *testing.T) {
	var seen atomic.Int64 // bytes of the bodies that the server read whole
	var calls atomic.Int64
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		seen.Add(int64(len(body)))
		w.Header().Set("X-Host", r.Host)
		_, _ = w.Write(body)
	}))
	defer server.Close()
	p, err := publishtest.NewProxy(server.URL, server.Client().Transport)
	require.NoError(t, err)
	defer p.Close()
	post := func(ctx context.Context) (*http.Response, string, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URL+"/a?b=c", io.NopCloser(bytes.NewReader(make([]byte, 100_000))))
		require.NoError(t, err)
		req.ContentLength = 100_000
		resp, err := p.Client().Do(req)
		if err != nil {
			return nil, "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return resp, string(body), err
	}

	resp, body, err := post(t.Context())
	require.NoError(t, err)
	assert.Len(t, body, 100_000)
	assert.Equal(t, strings.TrimPrefix(p.URL, "https://"), resp.Header.Get("X-Host"))
	require.Len(t, p.Calls(), 1)
	assert.Equal(t, 200, p.Calls()[0].Status)
	assert.Equal(t, "c", p.Calls()[0].Query.Get("b"))

	for name, test := range map[string]struct {
		fault        publishtest.Fault
		status       int // 0 is an error
		calls, bytes int64
	}{
		"reset before":   {publishtest.Fault{When: publishtest.Before}, 0, 0, 0},
		"reset after":    {publishtest.Fault{When: publishtest.After}, 0, 1, 100_000},
		"cut in upload":  {publishtest.Fault{When: publishtest.Before, Upload: 50_000}, 0, 1, 0},
		"answer before":  {publishtest.Fault{When: publishtest.Before, Status: 503}, 503, 0, 0},
		"answer after":   {publishtest.Fault{When: publishtest.After, Status: 500}, 500, 1, 100_000},
		"cut in answer":  {publishtest.Fault{Download: 10}, 0, 1, 100_000},
		"slow":           {publishtest.Fault{Rate: 1 << 20}, 200, 1, 100_000},
		"late":           {publishtest.Fault{Delay: time.Millisecond}, 200, 1, 100_000},
		"killed by call": {publishtest.Fault{When: publishtest.After, Dead: true}, 0, 1, 100_000},
	} {
		p.Heal()
		calls.Store(0)
		seen.Store(0)
		p.Fault(func(publishtest.Call) publishtest.Fault { return test.fault })
		resp, body, err := post(t.Context())
		if test.status == 0 {
			require.Error(t, err, name)
		} else {
			require.NoError(t, err, name)
			assert.Equal(t, test.status, resp.StatusCode, name)
			assert.Equal(t, test.status == 200, len(body) == 100_000, name)
		}
		assert.Equal(t, test.calls, calls.Load(), name)
		assert.Equal(t, test.bytes, seen.Load(), name)
		if test.fault.Dead {
			_, _, err := post(t.Context())
			require.Error(t, err, "dead stays dead")
			assert.Equal(t, test.calls, calls.Load(), name)
		}
	}

	p.Heal()
	p.Fault(func(publishtest.Call) publishtest.Fault { return publishtest.Fault{Stall: true} })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, _, err = post(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}
