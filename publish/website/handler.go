package website

import (
	"io/fs"
	"net/http"
	"path"
	"strings"
)

// policy is what the pages say of themselves, and who may frame them, which only a
// header can say.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Handler serves a site, such as the FS of an [os.Root] of its directory, without
// what is not for readers, and with headers that keep what is downloaded from being
// taken for a page.
func Handler(site fs.FS) http.Handler {
	files := http.FileServerFS(site)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := path.Clean("/" + r.URL.Path)
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		if strings.Contains(name, "/.") {
			http.NotFound(w, r)
			return
		}
		if !strings.HasSuffix(r.URL.Path, "/index.html") && strings.HasSuffix(r.URL.Path, "/") && name != "/" && !strings.HasPrefix(name, "/images/") {
			http.NotFound(w, r) // no lists of directories
			return
		}
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		switch {
		case strings.HasPrefix(name, "/download/"), strings.HasPrefix(name, "/latest/"):
			h.Set("Content-Type", "application/octet-stream")
		case strings.HasSuffix(name, "atom.xml"):
			h.Set("Content-Type", "application/atom+xml; charset=utf-8")
		case strings.HasSuffix(name, ".sjson"), name == "/imagefactory.pub":
			h.Set("Content-Type", "text/plain; charset=utf-8")
		}
		files.ServeHTTP(w, r)
	})
}
