package signedindex

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"strings"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/builder"
)

// RPM is a repository of rpm packages.
type RPM struct {
	Mirror string // its name in the spec
	URL    string // base URL of the mirror
	Path   string // of the repository below it, without "/" at the ends; may be empty
}

// RPM reads the index of a repository and compares its list of packages. Its date is
// that of the newest list.
func (r *Reader) RPM(ctx context.Context, p RPM) (builder.Index, error) {
	return r.again(ctx, func() (builder.Index, error) { return r.rpm(ctx, p) })
}

func (r *Reader) rpm(ctx context.Context, p RPM) (builder.Index, error) {
	base := strings.TrimRight(join(p.URL, p.Path), "/")
	x := builder.Index{Mirror: p.Mirror, Path: strings.TrimLeft(p.Path+"/repodata/repomd.xml", "/")}
	place := join(p.URL, x.Path)
	data, err := r.read(ctx, place, maxIndex)
	if err != nil {
		return x, fault(ctx, place, builder.Unreachable, err)
	}
	x.SHA256 = digest(data)
	if x.Signer, err = r.detached(ctx, place, ".asc", "repomd.xml", data); err != nil {
		return x, err
	}
	md, err := parseRepomd(data)
	if err != nil {
		return x, fault(ctx, place, builder.Malformed, err)
	}
	x.Date = md.date
	return x, r.compare(ctx, join(base, md.primary.name), md.primary.digest, md.primary.size)
}

// repomd is what repomd.xml says.
type repomd struct {
	date    time.Time
	primary listed
}

// digestKinds are the kinds of digests by their length, in hexadecimal digits.
var digestKinds = map[int]string{64: "sha256", 128: "sha512"}

func parseRepomd(data []byte) (*repomd, error) {
	var index struct {
		XMLName xml.Name `xml:"repomd"`
		Data    []struct {
			Type     string `xml:"type,attr"`
			Checksum struct {
				Type string `xml:"type,attr"`
				Text string `xml:",chardata"`
			} `xml:"checksum"`
			Location struct {
				Href string `xml:"href,attr"`
			} `xml:"location"`
			Timestamp float64 `xml:"timestamp"`
			Size      int64   `xml:"size"`
		} `xml:"data"`
	}
	d := xml.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(&index); err != nil {
		return nil, errors.New("it is not the XML of an index") // the cause would quote it
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) && err != nil {
		return nil, errors.New("it is not the XML of an index")
	}
	md := &repomd{}
	for i, f := range index.Data {
		if f.Timestamp < 0 || f.Timestamp > math.MaxInt32*8 || f.Timestamp != f.Timestamp {
			return nil, fmt.Errorf("list number %d has a bad time", i+1)
		}
		if t := time.Unix(int64(f.Timestamp), 0).UTC(); f.Timestamp > 0 && t.After(md.date) {
			md.date = t
		}
		if f.Type != "primary" {
			continue
		}
		if md.primary.name != "" {
			return nil, errors.New("it has two lists of packages")
		}
		l := listed{f.Location.Href, strings.ToLower(strings.TrimSpace(f.Checksum.Text)), f.Size}
		kind, known := digestKinds[len(l.digest)]
		if !known || f.Checksum.Type != kind || !isDigest(l.digest) || l.size <= 0 || l.size > maxList || !fs.ValidPath(l.name) || strings.ContainsAny(l.name, " \t\r\n") {
			return nil, errors.New("its list of packages has no SHA-256 or SHA-512, size or name")
		}
		md.primary = l
	}
	if md.primary.name == "" {
		return nil, errors.New("it has no list of packages")
	}
	return md, nil
}
