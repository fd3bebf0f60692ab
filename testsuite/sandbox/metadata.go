package sandbox

import (
	"io"
	"log"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// metadataAddress is where clouds serve a machine's metadata, RFC 3927's last but one.
var metadataAddress = netip.AddrPortFrom(netip.AddrFrom4([4]byte{169, 254, 169, 254}), 80)

// metadataVersion is the version that the service names beside latest: the one of
// OpenStack Rocky, the last that cloud-init looks for.
const metadataVersion = "2018-08-27"

// metadataHandler serves files as OpenStack's metadata service does, whose paths are
// /openstack/VERSION/FILE.
func metadataHandler(files map[string][]byte) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /openstack/{$}", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, metadataVersion+"\nlatest")
	})
	mux.HandleFunc("GET /openstack", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, metadataVersion+"\nlatest")
	})
	mux.HandleFunc("GET /openstack/{version}/{file}", func(w http.ResponseWriter, r *http.Request) {
		content, ok := files[r.PathValue("file")]
		if version := r.PathValue("version"); !ok || version != metadataVersion && version != "latest" {
			http.NotFound(w, r)
			return
		}
		if strings.HasSuffix(r.PathValue("file"), ".json") {
			w.Header().Set("Content-Type", "application/json")
		} else {
			w.Header().Set("Content-Type", "application/octet-stream")
		}
		_, _ = w.Write(content)
	})
	return mux
}

// serveMetadata serves the guest its metadata until the wire is closed.
func (w *wire) serveMetadata(files map[string][]byte) error {
	l, err := w.network.Listen(metadataAddress)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler: metadataHandler(files), MaxHeaderBytes: 16 << 10,
		ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 30 * time.Second,
		ErrorLog: log.New(io.Discard, "", 0), // what the guest sends is its own affair
	}
	w.metadata = server
	w.work.Add(1)
	go func() {
		defer w.work.Done()
		_ = server.Serve(l)
	}()
	return nil
}
