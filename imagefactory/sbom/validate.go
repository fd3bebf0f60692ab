package sbom

import (
	"errors"
	"fmt"
	"io"
	"net/mail"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// maxErrors bounds what Validate says: the first ones tell.
const maxErrors = 50

// Validate holds a CycloneDX 1.6 document to every field that BSI TR-03183-2
// v2.1.0 requires, and names each that is missing or malformed. It also refuses
// vulnerabilities, references to components that are not there, and components
// that are there twice.
func Validate(r io.Reader) error {
	bom, err := decode(r)
	if err == nil {
		err = validate(bom)
	}
	if err != nil {
		return fmt.Errorf("the bill of materials is not valid: %w", err)
	}
	return nil
}

var (
	serialPattern = regexp.MustCompile(`^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	hexPattern    = regexp.MustCompile(`^[0-9a-f]+$`)
	// hashLength is the number of hexadecimal digits of the digests that are used.
	hashLength = map[cdx.HashAlgorithm]int{cdx.HashAlgoSHA256: 64, cdx.HashAlgoSHA384: 96, cdx.HashAlgoSHA512: 128}
	// words are what the taxonomy allows a property to say.
	words = map[string][]string{
		executableProperty: {"executable", "non-executable"},
		archiveProperty:    {"archive", "no archive"},
		structuredProperty: {"structured", "unstructured"},
	}
	// mayBeUnknown are the fields that UnknownProperty may name.
	mayBeUnknown = []string{"creator", "licence", "sha512"}
)

type validator struct {
	errs []error
	refs map[string]bool
}

func (v *validator) wrong(where, format string, args ...any) {
	if len(v.errs) < maxErrors {
		v.errs = append(v.errs, fmt.Errorf("%.200q: %w", where, fmt.Errorf(format, args...)))
	}
}

func validate(bom *cdx.BOM) error {
	v := &validator{refs: map[string]bool{}}
	v.document(bom)
	if bom.Metadata != nil && bom.Metadata.Component != nil {
		v.component(bom.Metadata.Component)
		if unknown := v.unknown(bom.Metadata.Component); slices.Contains(unknown, "sha512") || slices.Contains(unknown, "creator") {
			v.wrong("metadata.component", "who writes the list knows its creator and its SHA-512")
		}
	}
	if bom.Components == nil || len(*bom.Components) == 0 {
		v.wrong("components", "there are none")
	} else {
		for i := range *bom.Components {
			v.component(&(*bom.Components)[i])
		}
	}
	v.dependencies(bom)
	return errors.Join(v.errs...)
}

func (v *validator) document(bom *cdx.BOM) {
	if bom.BOMFormat != cdx.BOMFormat {
		v.wrong("bomFormat", "it is not %s", cdx.BOMFormat)
	}
	if bom.SpecVersion != cdx.SpecVersion1_6 {
		v.wrong("specVersion", "it is not 1.6")
	}
	if !serialPattern.MatchString(bom.SerialNumber) {
		v.wrong("serialNumber", "it is not a UUID")
	}
	if bom.Version < 1 {
		v.wrong("version", "it is not positive")
	}
	if bom.Vulnerabilities != nil {
		v.wrong("vulnerabilities", "they do not belong in a bill of materials")
	}
	m := bom.Metadata
	if m == nil {
		v.wrong("metadata", "it is missing")
		return
	}
	if _, err := time.Parse(time.RFC3339, m.Timestamp); err != nil {
		v.wrong("metadata.timestamp", "it is not a time of RFC 3339")
	}
	if !reachable(m.Manufacturer) {
		v.wrong("metadata.manufacturer", "the list's creator has no e-mail address or URL")
	}
	if m.Component == nil {
		v.wrong("metadata.component", "it is missing")
	}
	if bom.Compositions == nil || len(*bom.Compositions) == 0 {
		v.wrong("compositions", "it is not said whether the list is complete")
	}
}

// reachable reports whether there is a well-formed e-mail address or URL.
func reachable(e *cdx.OrganizationalEntity) bool {
	if e == nil {
		return false
	}
	if e.Contact != nil {
		for _, c := range *e.Contact {
			if a, err := mail.ParseAddress(c.Email); err == nil && a.Address == c.Email {
				return true
			}
		}
	}
	if e.URL != nil {
		for _, s := range *e.URL {
			if u, err := url.Parse(s); err == nil && u.Host != "" && (u.Scheme == "https" || u.Scheme == "http") {
				return true
			}
		}
	}
	return false
}

// unknown are the fields that a component says are not known.
func (v *validator) unknown(c *cdx.Component) []string {
	return strings.Fields(property(c, UnknownProperty))
}

func (v *validator) component(c *cdx.Component) {
	where := c.BOMRef
	switch {
	case where == "":
		v.wrong(c.Name, "a component has no bom-ref")
	case v.refs[where]:
		v.wrong(where, "the bom-ref is there twice")
	}
	v.refs[where] = true
	if c.Type == "" {
		v.wrong(where, "no type")
	}
	if c.Name == "" {
		v.wrong(where, "no name")
	}
	if c.Version == "" {
		v.wrong(where, "no version")
	}
	unknown := v.unknown(c)
	for _, field := range unknown {
		if !slices.Contains(mayBeUnknown, field) {
			v.wrong(where, "%s names a field that cannot be unknown", UnknownProperty)
		}
	}
	// Either it is there, or it is said that nobody knows: not neither, not both.
	for field, known := range map[string]bool{"creator": reachable(c.Manufacturer), "licence": hasLicence(c), "sha512": digest(c, cdx.HashAlgoSHA512) != ""} {
		if said := slices.Contains(unknown, field); known == said {
			v.wrong(where, "%s is %s", field, map[bool]string{true: "there and called unknown", false: "missing"}[known])
		}
	}
	v.hashes(where, c.Hashes)
	if c.ExternalReferences != nil {
		for _, r := range *c.ExternalReferences {
			v.hashes(where, r.Hashes)
		}
	}
	if name := property(c, filenameProperty); name == "" || strings.ContainsAny(name, "/\\\x00") {
		v.wrong(where, "%s is missing or has a path", filenameProperty)
	}
	for _, name := range []string{executableProperty, archiveProperty, structuredProperty} {
		if !slices.Contains(words[name], property(c, name)) {
			v.wrong(where, "%s is missing or not of the taxonomy", name)
		}
	}
	if c.Type == cdx.ComponentTypeLibrary && !strings.HasPrefix(c.PackageURL, "pkg:") {
		v.wrong(where, "a package has no purl")
	}
	if c.Components != nil {
		v.wrong(where, "components within components are not read")
	}
}

func hasLicence(c *cdx.Component) bool {
	return c.Licenses != nil && len(*c.Licenses) > 0 && !slices.ContainsFunc(*c.Licenses, func(l cdx.LicenseChoice) bool {
		return l.Expression == "" && (l.License == nil || l.License.ID == "" && l.License.Name == "")
	})
}

func (v *validator) hashes(where string, hashes *[]cdx.Hash) {
	if hashes == nil {
		return
	}
	for _, h := range *hashes {
		if n := hashLength[h.Algorithm]; n == 0 || len(h.Value) != n || !hexPattern.MatchString(h.Value) {
			v.wrong(where, "a digest is not a SHA-256, SHA-384 or SHA-512 in lower-case hexadecimal")
		}
	}
}

// dependencies: every component says what it needs, and needs what is there.
func (v *validator) dependencies(bom *cdx.BOM) {
	said := map[string]bool{}
	if bom.Dependencies != nil {
		for _, d := range *bom.Dependencies {
			if !v.refs[d.Ref] {
				v.wrong(d.Ref, "dependencies of a component that is not there")
			}
			if said[d.Ref] {
				v.wrong(d.Ref, "its dependencies are there twice")
			}
			said[d.Ref] = true
			if d.Dependencies == nil {
				continue
			}
			for _, ref := range *d.Dependencies {
				if !v.refs[ref] {
					v.wrong(d.Ref, "it needs a component that is not there")
				}
			}
		}
	}
	for ref := range v.refs {
		if !said[ref] {
			v.wrong(ref, "its dependencies are not said")
		}
	}
}
