// Website writes static pages and feeds of a download directory.
//
//	website -dir DIR -keyring FILE [-catalog] [-config FILE] [-title TEXT] [-url URL] [-sign KEY] -out DIR [-serve ADDRESS:PORT]
//
// Every release below DIR is verified with the keys of FILE before anything of it is
// shown. With -catalog the table has the cloud's public images too, with -config what
// the definitions of a factory say. With -sign the simplestreams feed has signed
// copies, by the secret key in the file. DIR/report.json is shown as the last run, if
// it is there. With -serve the pages are served, such as on 127.0.0.1:8080, until the
// program gets a signal.
//
// It exits with 0 if all is written, 1 if a release does not verify, which the pages
// say too, and 2 for wrong usage and what cannot be read or written.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/publish/website"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// maxReport bounds DIR/report.json, in bytes.
const maxReport = 64 << 20

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("website", flag.ContinueOnError)
	flags.SetOutput(stderr)
	dir := flags.String("dir", "", "download `directory`, with releases NAME/BUILD")
	keyring := flags.String("keyring", "", "`file` of the OpenPGP keys that may sign releases")
	catalog := flags.Bool("catalog", false, "show the cloud's public images too")
	config := flags.String("config", "", "definition `file` (YAML) of images")
	title := flags.String("title", "", "`text` above the pages")
	url := flags.String("url", "", "`URL` where the pages will be served, for feeds that need it")
	sign := flags.String("sign", "", "`file` of the secret key that signs feeds")
	out := flags.String("out", "", "`directory` to write")
	serve := flags.String("serve", "", "serve the pages at this `address`")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	fail := func(code int, err error) int {
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintln(stderr, "website:", strings.TrimSuffix(line, "\n"))
		}
		return code
	}
	if *dir == "" || *keyring == "" || *out == "" || flags.NArg() > 0 {
		return fail(2, errors.New("want -dir DIR -keyring FILE -out DIR and no other arguments"))
	}
	site := &website.Site{Title: *title, URL: *url, Dir: *dir, Out: *out, List: (&directory.Target{Dir: *dir}).List}
	if err := fill(site, *keyring, *config, *sign, *catalog); err != nil {
		return fail(2, err)
	}
	code := 0
	if err := site.Write(ctx); err != nil {
		var bad *website.BadReleaseError
		if !errors.As(err, &bad) {
			return fail(2, err)
		}
		code = fail(1, err)
	}
	fmt.Fprintln(stdout, filepath.Join(*out, "index.html"))
	if *serve != "" {
		if err := serveDir(ctx, *serve, *out, stdout); err != nil {
			return fail(2, err)
		}
	}
	return code
}

// fill reads what the site is made from besides the releases.
func fill(site *website.Site, keyring, config, sign string, catalog bool) (err error) {
	if site.Keyring, err = signing.LoadKeyring(keyring); err != nil {
		return err
	}
	if sign != "" {
		key, err := signing.LoadKey(sign, nil)
		if err != nil {
			return err
		}
		if site.Signer, err = signing.NewSigner(key, signing.SignerConfig{}); err != nil {
			return err
		}
	}
	var definitions []imagefactory.Definition
	if config != "" {
		if definitions, err = imagefactory.LoadFile(config); err != nil {
			return err
		}
	}
	var entries []imagefactory.CatalogEntry
	if catalog {
		entries = imagefactory.Catalog()
	}
	imagefactory.FillSite(site, entries, definitions)
	site.Report, err = readReport(filepath.Join(site.Dir, "report.json"))
	return err
}

// readReport reads the report of the last run; none if there is no such file.
func readReport(name string) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe would wait for its writer
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxReport+1))
	if err == nil && len(data) > maxReport {
		err = fmt.Errorf("%s is larger than %d bytes", name, maxReport)
	}
	return data, err
}

// serveDir serves the pages until ctx ends.
func serveDir(ctx context.Context, address, dir string, stdout io.Writer) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: website.Handler(root.FS()), ReadHeaderTimeout: 10 * time.Second}
	fmt.Fprintf(stdout, "http://%s/\n", listener.Addr())
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
