package glance

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/openstackapi"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
)

// TestWebDownload lets the cloud fetch what a download directory has; and what is not
// there, or is something else, becomes no image.
func TestWebDownload(t *testing.T) {
	dir := t.TempDir()
	var asked atomic.Int32
	files := http.FileServer(http.Dir(dir))
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		files.ServeHTTP(w, r)
	}))
	t.Cleanup(web.Close)
	tg := target(t, Config{WebDownload: web.URL, AllowLocalAddresses: true})
	var sent int64
	tg.Journal = func(c publish.Call) { sent = max(sent, c.SentBytes) }
	r := release(t, "Standard_Web", 1)
	disk, err := openstackapi.DiskOf(r)
	require.NoError(t, err)

	_, err = publish.Publish(t.Context(), tg, r)
	require.ErrorContains(t, err, "the cloud could not fetch it from "+web.URL)
	own, err := connect(t, tg).own(t.Context(), "Standard_Web")
	require.NoError(t, err)
	require.Empty(t, own)

	_, err = publish.Publish(t.Context(), &directory.Target{Dir: dir}, r)
	require.NoError(t, err)
	at := filepath.Join(dir, "Standard_Web", nth(1).String(), disk.Name)
	good, err := os.ReadFile(at)
	require.NoError(t, err)
	bad := append([]byte(nil), good...)
	bad[200] ^= 1 // in the unused rest of the header's cluster
	require.NoError(t, os.WriteFile(at, bad, 0o644))
	_, err = publish.Publish(t.Context(), tg, r)
	require.ErrorIs(t, err, errContent)

	require.NoError(t, os.WriteFile(at, good, 0o644))
	asked.Store(0)
	p, err := publish.Publish(t.Context(), tg, r)
	require.NoError(t, err)
	require.Equal(t, disk.SHA256, download(t, tg, p.Entry.ID))
	require.Positive(t, asked.Load())
	require.Less(t, sent, disk.SizeBytes, "the bytes went from here")
}

func TestWebDownloadRefused(t *testing.T) {
	for url, want := range map[string]string{
		"ftp://host":                         "want the http or https URL",
		"https://":                           "want the http or https URL",
		"/srv/images":                        "want the http or https URL",
		"https://u:hunter2@host":             "has a user, a query",
		"https://host/?Signature=hunter2":    "has a user, a query",
		"http://169.254.169.254/latest":      "allow_local_addresses allows it",
		"http://[fe80::1]/":                  "allow_local_addresses allows it",
		"http://127.0.0.1:8080/":             "allow_local_addresses allows it",
		"http://[::1]/":                      "allow_local_addresses allows it",
		"http://[::ffff:169.254.169.254]/":   "allow_local_addresses allows it",
		"http://0.0.0.0/":                    "allow_local_addresses allows it",
		"http://127.1/":                      "neither a name nor an address",
		"http://2130706433/":                 "neither a name nor an address",
		"http://0x7f000001/":                 "neither a name nor an address",
		"http://169.254.0xa9fe./":            "neither a name nor an address",
		"http://224.0.0.1/":                  "allow_local_addresses allows it",
		"http://0.1.2.3/":                    "allow_local_addresses allows it",
		"http://[::127.0.0.1]/":              "allow_local_addresses allows it", // IPv4-compatible
		"http://[64:ff9b::169.254.169.254]/": "allow_local_addresses allows it", // NAT64
		"http://[64:ff9b:1::a9fe:a9fe]/":     "allow_local_addresses allows it",
		"http://[2002:a9fe:a9fe::1]/":        "allow_local_addresses allows it", // 6to4
		"http://[2001:0:1::2]/":              "allow_local_addresses allows it", // Teredo
		"http://[fe80::1%25eth0]/":           "allow_local_addresses allows it",
		"http://[2001:db8::1%25eth0]/":       "allow_local_addresses allows it",
		"http://１２７.0.0.1/":                  "neither a name nor an address", // which some read as digits
		"http://127。0。0。1/":                  "neither a name nor an address",
		"http://[64:ff9b::192.0.2.1]/":       "",
		"https://images.example.org/linux":   "",
		"http://10.0.0.7/linux":              "",
		"https://[2001:db8::1]:8443/linux":   "",
	} {
		_, err := New(Config{Cloud: "c", WebDownload: url}, nil)
		if want == "" {
			require.NoError(t, err, url)
			continue
		}
		require.ErrorContains(t, err, want, url)
		require.NotContains(t, err.Error(), "hunter2")
	}
	_, err := New(Config{Cloud: "c", WebDownload: "http://169.254.169.254/", AllowLocalAddresses: true}, nil)
	require.NoError(t, err)
	_, err = New(Config{Cloud: "c", WebDownload: "https://h", Import: true}, nil)
	require.ErrorContains(t, err, "want one")
	// A name is resolved when it is used.
	tg := target(t, Config{WebDownload: "http://localhost:1/"})
	_, err = publish.Publish(t.Context(), tg, release(t, "Standard_Web_Local", 1))
	require.ErrorContains(t, err, "allow_local_addresses allows it")
}
