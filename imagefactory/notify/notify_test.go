package notify

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
)

var secret = secretPrefix + base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))

// The vector is one that the standard's own libraries test.
func TestSignatureOfTheStandard(t *testing.T) {
	key, err := parseSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	require.NoError(t, err)
	require.Equal(t, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", []byte(`{"test": 2432232314}`)))
}

func TestMessage(t *testing.T) {
	report := &imagefactory.Report{Images: []imagefactory.ImageReport{{
		Name: "Standard_A_1", Result: imagefactory.Failed, Error: strings.Repeat("ä", 10_000), Artifacts: []string{"a"}, Alarms: []string{strings.Repeat("x", 10_000)},
		Findings: []imagefactory.Finding{{ID: "a.b", Text: strings.Repeat("y", 10_000)}}, Targets: []imagefactory.TargetReport{{Name: "t", Error: strings.Repeat("z", 10_000)}},
	}}}
	m, err := Finished(report, time.Date(2026, 1, 1, 4, 0, 0, 0, time.FixedZone("", 3600)))
	require.NoError(t, err)
	require.Less(t, len(m.Body), 4000)
	var got struct {
		Type, Timestamp string
		Data            imagefactory.Report
	}
	require.NoError(t, json.Unmarshal(m.Body, &got))
	require.Equal(t, "night.finished", got.Type)
	require.Equal(t, "2026-01-01T03:00:00Z", got.Timestamp)
	require.Equal(t, strings.Repeat("ä", 499)+"…", got.Data.Images[0].Error)
	require.Len(t, report.Images[0].Error, 20_000, "the report itself stays")
	require.Len(t, report.Images[0].Findings[0].Text, 10_000)
	require.Equal(t, []string{"a"}, report.Images[0].Artifacts)
}

// answers serves a status after another, and returns what was asked.
func answers(t *testing.T, status ...int) (url string, asked *[]*http.Request, bodies *[]string) {
	asked, bodies = new([]*http.Request), new([]string)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(err)
		}
		n := min(len(*asked), len(status)-1)
		*asked, *bodies = append(*asked, r), append(*bodies, string(body))
		w.Header().Set("Location", "/elsewhere")
		if status[n] == http.StatusTooManyRequests {
			w.Header().Set("Retry-After", "7")
		}
		if status[n] == http.StatusServiceUnavailable {
			w.Header().Set("Retry-After", "86400")
		}
		w.WriteHeader(status[n])
	}))
	t.Cleanup(server.Close)
	return server.URL + "/hook?token=hush", asked, bodies
}

func TestWebhook(t *testing.T) {
	m := Message{ID: "msg_1", Body: []byte(`{"type":"night.finished"}`)}
	for name, test := range map[string]struct {
		status []int
		asked  int
		waits  []time.Duration // at least
		want   string          // of the error
	}{
		"taken":                    {status: []int{204}, asked: 1},
		"taken at last":            {status: []int{500, 502, 408, 425, 200}, asked: 5, waits: []time.Duration{1e9, 2e9, 4e9, 8e9}},
		"never taken":              {status: []int{500}, asked: 5, waits: []time.Duration{1e9, 2e9, 4e9, 8e9}, want: "5 attempts: the answer is status 500"},
		"later":                    {status: []int{429, 200}, asked: 2, waits: []time.Duration{7e9}},
		"much later, at most this": {status: []int{503, 200}, asked: 2, waits: []time.Duration{time.Minute}},
		"a redirect is no success": {status: []int{302}, asked: 1, want: "status 302"},
		"a kept redirect":          {status: []int{308}, asked: 1, want: "status 308"},
		"refused":                  {status: []int{401}, asked: 1, want: "status 401"},
		"gone":                     {status: []int{410}, asked: 1, want: ErrGone.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			url, asked, bodies := answers(t, test.status...)
			var waits []time.Duration
			w := &Webhook{URL: url, Secrets: []string{secret}, wait: func(_ context.Context, d time.Duration) error { waits = append(waits, d); return nil }}
			err := w.Send(t.Context(), m)
			if test.want == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, test.want)
				require.NotContains(t, err.Error(), "hush")
			}
			require.Len(t, *asked, test.asked)
			require.Len(t, waits, len(test.waits))
			for i, d := range waits {
				require.GreaterOrEqual(t, d, test.waits[i])
				require.LessOrEqual(t, d, test.waits[i]*3/2)
			}
			for i, r := range *asked {
				require.Equal(t, "/hook", r.URL.Path)
				require.Equal(t, "msg_1", r.Header.Get("webhook-id"), "the same each time")
				require.NoError(t, Verify(secret, r.Header, []byte((*bodies)[i]), time.Now()))
			}
		})
	}
}

func TestWebhookAddresses(t *testing.T) {
	for address, want := range map[string]string{
		"http://example.org/hook":       "neither https nor http on loopback",
		"http://127.0.0.1.example.org/": "neither https nor http on loopback",
		"http://[::2]/":                 "neither https nor http on loopback",
		"ftp://localhost/":              "neither https nor http on loopback",
		"localhost:80":                  "no URL",
		"":                              "no URL",
		"https://user:hush@h\x00/":      "no URL",
	} {
		err := (&Webhook{URL: address, Secrets: []string{secret}}).Send(t.Context(), Message{})
		require.ErrorContains(t, err, want, address)
		require.NotContains(t, err.Error(), "hush")
	}
	for _, good := range []string{"https://example.org/hook", "http://localhost:1/", "http://127.0.0.9/", "http://[::1]:1/", "http://[::ffff:127.0.0.1]/"} {
		require.NoError(t, (&Webhook{URL: good, Secrets: []string{secret}}).Validate(), good)
	}
	for _, bad := range []string{"", "hush", "whsec_", "whsec_aHVzaA==", "whsec_!!!", secretPrefix + base64.StdEncoding.EncodeToString(make([]byte, 65))} {
		err := (&Webhook{URL: "https://example.org/", Secrets: []string{secret, bad}}).Validate()
		require.ErrorContains(t, err, "a webhook's secret is not")
		require.NotContains(t, err.Error(), "hush")
	}
	require.ErrorContains(t, (&Webhook{URL: "https://example.org/"}).Validate(), "no secret")
	// A name that is localhost here may lead elsewhere there.
	_, err := onLoopback().RoundTrip(httptest.NewRequest(http.MethodGet, "http://192.0.2.1:1/", nil))
	require.ErrorIs(t, err, errNotLoopback)
}

func TestWebhookEndsWithItsContext(t *testing.T) {
	url, asked, _ := answers(t, 500)
	ctx, cancel := context.WithCancel(t.Context())
	w := &Webhook{URL: url, Secrets: []string{secret}, wait: func(ctx context.Context, _ time.Duration) error { cancel(); return sleep(ctx, time.Hour) }}
	require.ErrorIs(t, w.Send(ctx, Message{ID: "m"}), context.Canceled)
	require.Len(t, *asked, 1)
}

func TestVerifyRefuses(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	key, err := parseSecret(secret)
	require.NoError(t, err)
	body := []byte("{}")
	header := func() http.Header {
		h := http.Header{}
		h.Set("webhook-id", "m")
		h.Set("webhook-timestamp", "1700000000")
		h.Set("webhook-signature", "v1,other "+sign(key, "m", "1700000000", body))
		return h
	}
	require.NoError(t, Verify(secret, header(), body, now))
	for name, test := range map[string]struct {
		spoil func(http.Header)
		body  string
		now   time.Time
	}{
		"another body":   {body: "{ }", now: now},
		"another ID":     {spoil: func(h http.Header) { h.Set("webhook-id", "n") }, body: "{}", now: now},
		"another time":   {spoil: func(h http.Header) { h.Set("webhook-timestamp", "1700000001") }, body: "{}", now: now},
		"no time":        {spoil: func(h http.Header) { h.Del("webhook-timestamp") }, body: "{}", now: now},
		"no signature":   {spoil: func(h http.Header) { h.Del("webhook-signature") }, body: "{}", now: now},
		"too old":        {body: "{}", now: now.Add(6 * time.Minute)},
		"of the future":  {body: "{}", now: now.Add(-6 * time.Minute)},
		"only a version": {spoil: func(h http.Header) { h.Set("webhook-signature", "v1,") }, body: "{}", now: now},
	} {
		h := header()
		if test.spoil != nil {
			test.spoil(h)
		}
		require.Error(t, Verify(secret, h, []byte(test.body), test.now), name)
	}
}

func TestCommand(t *testing.T) {
	dir := t.TempDir()
	script := func(name, text string) string {
		file := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(file, []byte("#!/bin/sh\n"+text), 0o755))
		return file
	}
	m := Message{ID: "m", Body: []byte(`{"type":"night.finished"}`)}
	out := filepath.Join(dir, "out")
	c := &Command{Args: []string{script("keep", `printf %s "$1" >"$2"; cat >>"$2"`), "$(touch no) ;", out}}
	require.NoError(t, c.Run(t.Context(), m))
	have, err := os.ReadFile(out)
	require.NoError(t, err)
	require.Equal(t, "$(touch no) ;"+string(m.Body), string(have), "no shell looks at the arguments")

	large := Message{Body: make([]byte, 1<<20)}
	require.NoError(t, (&Command{Args: []string{"true"}}).Run(t.Context(), large), "who does not read is not waited for")
	err = (&Command{Args: []string{script("fail", "head -c 100000 /dev/zero | tr '\\0' x; printf '\\033[31mno\\n' >&2; exit 3")}}).Run(t.Context(), m)
	require.ErrorContains(t, err, "cannot run the command fail: exit status 3: xxx")
	require.ErrorContains(t, err, `\x1b[31mno`)
	require.Less(t, len(err.Error()), 2<<10)
	require.ErrorContains(t, (&Command{Args: []string{filepath.Join(dir, "none")}}).Run(t.Context(), m), "no such file")
	require.Error(t, (&Command{}).Run(t.Context(), m))

	// Its time is limited, and its children end with it.
	pid := filepath.Join(dir, "pid")
	err = (&Command{Args: []string{script("hang", `sleep 1000 & echo $! >"$1"; wait`), pid}, Timeout: 2 * time.Second}).Run(t.Context(), m)
	require.ErrorContains(t, err, "it did not end within 2s")
	child, err := os.ReadFile(pid)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		state, err := os.ReadFile(fmt.Sprintf("/proc/%s/stat", strings.TrimSpace(string(child))))
		return errors.Is(err, os.ErrNotExist) || strings.Contains(string(state), ") Z ")
	}, 10*time.Second, 10*time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, (&Command{Args: []string{"true"}}).Run(ctx, m), context.Canceled)
}

func ExampleWebhook() {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Println(Verify(secret, r.Header, body, time.Now()), strings.HasPrefix(string(body), `{"type":"night.finished"`))
	}))
	defer server.Close()
	message, err := Finished(&imagefactory.Report{}, time.Now())
	if err == nil {
		err = (&Webhook{URL: server.URL, Secrets: []string{secret}}).Send(context.Background(), message)
	}
	fmt.Println(err)
	// Output:
	// <nil> true
	// <nil>
}
