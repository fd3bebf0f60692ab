package glance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/internal/openstackapi"
	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// checkWebDownload refuses a place that would make the cloud read something else than
// what is published, or that has secrets in its URL.
func (c *Config) checkWebDownload() error {
	u, err := url.Parse(c.WebDownload)
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		return errors.New("web_download: want the http or https URL of a published directory")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return errors.New("web_download: the URL has a user, a query or a fragment, which the cloud and its logs would see")
	}
	a, err := netip.ParseAddr(u.Hostname())
	switch {
	case err == nil:
		return c.checkAddress(a)
	case number.MatchString(u.Hostname()), notASCII.MatchString(u.Hostname()): // an address to some resolvers, such as 127.1
		return fmt.Errorf("web_download: %.80q is neither a name nor an address as it is commonly written", u.Hostname())
	}
	return nil
}

// number is what a name's last label cannot be. What is not ASCII may be read as digits
// and dots; a name is written with xn-- then.
var (
	number   = regexp.MustCompile(`(?i)(^|\.)([0-9]+|0x[0-9a-f]*)\.?$`)
	notASCII = regexp.MustCompile(`[^ -~]`)
)

// checkAddress refuses addresses that mean another machine to the cloud than here, such
// as that of its metadata service.
func (c *Config) checkAddress(a netip.Addr) error {
	to := reached(a)
	if c.AllowLocalAddresses || a.Zone() == "" && to.IsGlobalUnicast() && (!to.Is4() || to.As4()[0] != 0) {
		return nil
	}
	return fmt.Errorf("web_download: %s is link-local, loopback or no machine's: to the cloud it is another place than here (allow_local_addresses allows it)", a)
}

// Addresses of version 6 with one of version 4 in them, or that lead through a machine
// of which only the cloud knows.
var (
	compatible = netip.MustParsePrefix("::/96")          // RFC 4291, 2.5.5.1
	nat64      = netip.MustParsePrefix("64:ff9b::/96")   // RFC 6052
	localNAT64 = netip.MustParsePrefix("64:ff9b:1::/48") // RFC 8215
	sixToFour  = netip.MustParsePrefix("2002::/16")      // RFC 3056
	teredo     = netip.MustParsePrefix("2001::/32")      // RFC 4380
)

// reached is the address that a packet to a gets to in the end; the zero Addr where
// that cannot be told.
func reached(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return a
	}
	b := a.As16()
	switch {
	case compatible.Contains(a), nat64.Contains(a):
		return netip.AddrFrom4([4]byte(b[12:]))
	case sixToFour.Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6]))
	case localNAT64.Contains(a), teredo.Contains(a):
		return netip.Addr{}
	}
	return a
}

// webDownload lets the cloud fetch the image's content. It only asks for it: verify
// compares what came of that.
func (t *Target) webDownload(ctx context.Context, c *client, i *image, r *publish.Release, disk publish.File) error {
	u, err := url.Parse(t.config.WebDownload)
	if err != nil {
		return err
	}
	// The cloud asks its own resolver later; what this one says is what can be known.
	addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname())
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, a := range addresses {
		if err == nil {
			err = t.config.checkAddress(a)
		}
	}
	if err != nil && len(addresses) > 0 { // a name that only the cloud knows is its own affair
		return err
	}
	at := u.JoinPath(r.Index.Image, r.Index.Build.String(), disk.Name).String()
	in := map[string]any{"method": map[string]string{"name": "web-download", "uri": at}}
	err = c.Call(ctx, http.MethodPost, paths.Image+i.ID+"/import", in, nil)
	if err != nil && !openstackapi.IsStatus(err, http.StatusConflict) { // it has begun
		return err
	}
	return t.waitImported(ctx, c, i, at)
}

// waitImported reads the image until the import has begun and ended: before, and after
// one that failed, it is queued.
func (t *Target) waitImported(ctx context.Context, c *client, i *image, at string) error {
	began := false
	for until := time.Now().Add(t.patience); ; {
		now, err := c.Get(ctx, i.ID)
		if err != nil {
			return err
		}
		switch *i = *now; {
		case i.Status == "active":
			return nil
		case i.Status != "queued":
			began = true
		case began || i.Prop("os_glance_failed_import") != "":
			return fmt.Errorf("%w: the cloud could not fetch it from %s; the release is published there first, and the cloud has to reach it", errContent, at)
		}
		limit := until
		if !began {
			limit = until.Add(t.settle - t.patience)
		}
		if time.Now().After(limit) {
			return fmt.Errorf("image %s: %w", i.ID, errStuck)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(t.pause):
		}
	}
}
