package kiwi

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// maxDescription bounds the size of a description's config.xml.
const maxDescription = 1 << 20

// maxDepth bounds how deep its elements may be nested.
const maxDepth = 32

// values replace what a description says.
type values struct {
	name      string
	version   string
	diskBytes int64
	profiles  []string
	// mirror returns the base URL of a repository by its name in the
	// description.
	mirror func(name string) (string, error)
}

// summary is what the driver has to know of a description.
type summary struct {
	manager      string       // package manager: apt, zypper, …
	repositories []repository // that it builds from
}

// repository is one of a description's.
type repository struct {
	mirror, path string // its mirror's name, and where it is below that
	kind         string // rpm-md, apt-deb, …
	distribution string // apt-deb: the suite
	components   string // apt-deb: separated by spaces; main if empty
	profiles     string // separated by commas; those with which it is used, all if empty
}

var (
	// A repository's path: {name of the mirror} and what follows its base URL.
	mirrorPath  = regexp.MustCompile(`^\{([a-z0-9][a-z0-9._-]{0,63})\}((?:/[A-Za-z0-9._~:@%+,=-]*)*)$`)
	managers    = []string{"apt", "dnf", "dnf4", "dnf5", "yum", "zypper"}
	profileName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
)

// refusedElements are those that bring in what nobody of the trusted has
// signed, or that the driver does not read.
var refusedElements = map[string]string{
	"containers": "containers are not signed by the trusted keys",
	"include":    "everything must stand in config.xml",
	"signing":    "the keys that may sign packages are the definition's trusted_keys",
	"product":    "products bring repositories of their own",
}

// refusedAttributes are the same for attributes, by element.
var refusedAttributes = map[string]map[string]string{
	"packages": {"bootstrap_package": "its file would come unsigned from the host"},
	"type": {
		"derived_from": "the image would hold what the trusted keys have not signed",
		"installiso":   "only the disk is used", "installstick": "only the disk is used", "installpxe": "only the disk is used",
	},
	"repository": {
		"imageinclude": "what the image has registered are the definition's repositories", "imageonly": "what the image has registered are the definition's repositories",
		"username": "passwords do not belong into what is published", "password": "passwords do not belong into what is published",
		"customize": "a script could weaken the verification of packages",
	},
}

// render checks a description and writes it with the values in place of its own:
// the image's name, version and disk size and the repositories' URLs, all of
// them with signatures checked. All that is wrong is reported at once, with
// lines.
func render(src []byte, v values) ([]byte, summary, error) {
	if len(src) > maxDescription {
		return nil, summary{}, fmt.Errorf("more than %d bytes", maxDescription)
	}
	var out bytes.Buffer
	r := &renderer{values: v, in: xml.NewDecoder(bytes.NewReader(src)), out: xml.NewEncoder(&out), src: src,
		seen: map[string]int{}, profile: map[string]bool{}}
	if err := r.run(); err != nil {
		return nil, summary{}, err
	}
	if err := r.out.Close(); err != nil {
		return nil, summary{}, fmt.Errorf("not well-formed: %w", err)
	}
	out.WriteByte('\n')
	return out.Bytes(), summary{manager: r.manager, repositories: r.repositories}, nil
}

type renderer struct {
	values
	in      *xml.Decoder
	out     *xml.Encoder
	src     []byte
	path    []string // of open elements
	seen    map[string]int
	profile map[string]bool // those that are declared
	manager string
	// Those that have ended, and the one that is open.
	repositories []repository
	repository   repository
	errs         []error
}

// fail notes what is wrong at the current place.
func (r *renderer) fail(format string, args ...any) {
	line := 1 + bytes.Count(r.src[:min(int(r.in.InputOffset()), len(r.src))], []byte("\n"))
	r.errs = append(r.errs, fmt.Errorf("line %d: %w", line, fmt.Errorf(format, args...)))
}

func (r *renderer) run() error {
	for {
		token, err := r.in.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			var syntax *xml.SyntaxError
			if errors.As(err, &syntax) { // its text would quote the file
				err = fmt.Errorf("line %d", syntax.Line)
			}
			return errors.Join(append(r.errs, fmt.Errorf("not well-formed XML: %w", err))...)
		}
		if err := r.token(token); err != nil {
			return errors.Join(append(r.errs, err)...)
		}
		if len(r.errs) > 20 {
			break
		}
	}
	r.complete()
	return errors.Join(r.errs...)
}

// token handles one token and writes it.
func (r *renderer) token(token xml.Token) error {
	switch t := token.(type) {
	case xml.Directive:
		r.fail("a document type or entities are not allowed")
		return nil
	case xml.ProcInst:
		if t.Target != "xml" {
			return nil // for editors
		}
		token = xml.ProcInst{Target: "xml", Inst: []byte(`version="1.0" encoding="utf-8"`)}
	case xml.StartElement:
		if len(r.path) >= maxDepth {
			return fmt.Errorf("elements are nested deeper than %d", maxDepth)
		}
		name := t.Name.Local
		r.path = append(r.path, name)
		r.seen[strings.Join(r.path, "/")]++
		return r.start(t)
	case xml.EndElement:
		if name := t.Name.Local; name == "type" && r.at("image/preferences/type") {
			if err := r.element("size", strconv.FormatInt(r.diskBytes>>20, 10), xml.Attr{Name: xml.Name{Local: "unit"}, Value: "M"}); err != nil {
				return err
			}
		}
		r.path = r.path[:len(r.path)-1]
	case xml.CharData:
		if r.at("image/preferences/packagemanager") {
			r.manager = strings.TrimSpace(string(t))
		}
	}
	return r.out.EncodeToken(token)
}

func (r *renderer) at(path string) bool { return strings.Join(r.path, "/") == path }

// start handles the beginning of an element.
func (r *renderer) start(t xml.StartElement) error {
	name := t.Name.Local
	if reason, ok := refusedElements[name]; ok {
		r.fail("<%s> is not allowed: %s", name, reason)
	}
	if t.Name.Space != "" || slices.ContainsFunc(t.Attr, func(a xml.Attr) bool { return a.Name.Space != "" || a.Name.Local == "xmlns" }) {
		return errors.New("XML namespaces are not allowed") // a name would not be what it seems
	}
	for _, a := range t.Attr {
		if reason, ok := refusedAttributes[name][a.Name.Local]; ok && a.Value != "false" {
			r.fail("%s= of <%s> is not allowed: %s", a.Name.Local, name, reason)
		}
	}
	switch {
	case r.at("image"):
		setAttr(&t, "name", r.name)
	case r.at("image/profiles/profile"):
		r.profile[attr(t, "name")] = true
	case r.at("image/preferences/version"):
		if err := r.replaceElement("version", r.version); err != nil {
			return err
		}
		return r.element("rpm-check-signatures", "true")
	case r.at("image/preferences/rpm-check-signatures"), r.at("image/preferences/type/size"):
		return r.skip() // the driver's own
	case r.at("image/preferences/type"):
		// vmx is what kiwi 7 calls a disk; the schema of kiwi-ng refuses it.
		if kind := attr(t, "image"); kind != "oem" && kind != "vmx" || attr(t, "format") != "qcow2" {
			r.fail(`<type>: want image="oem" and format="qcow2"`)
		}
	case r.at("image/preferences/type/oemconfig/oem-resize"):
		return r.replaceElement("oem-resize", "false") // the first boot's cloud-init does it
	case r.at("image/repository"):
		r.repository = repository{kind: attr(t, "type"), distribution: attr(t, "distribution"), components: attr(t, "components"), profiles: attr(t, "profiles")}
		setAttr(&t, "repository_gpgcheck", "true")
		setAttr(&t, "package_gpgcheck", "true")
	case r.at("image/repository/source"):
		r.source(&t)
	case r.at("image/users/user"):
		if p := attr(t, "password"); p != "" && p != "!" && p != "*" && p != "!!" {
			r.fail("<user>: a password does not belong into what is published: want password=\"!\"")
		}
	case name == "archive" || name == "file":
		if f := attr(t, "name"); f == "" || strings.ContainsAny(f, `/\:`) || strings.HasPrefix(f, ".") {
			r.fail("<%s>: want the name of a file in the description's directory", name)
		}
	}
	for _, a := range t.Attr {
		if strings.Contains(a.Value, "://") && !r.at("image/repository/source") {
			r.fail("%s= of <%s>: a URL is allowed only as {mirror}/path in a <source>", a.Name.Local, name)
		}
	}
	return r.out.EncodeToken(t)
}

// source puts the caller's mirror in place of a repository's placeholder.
func (r *renderer) source(t *xml.StartElement) {
	m := mirrorPath.FindStringSubmatch(attr(*t, "path"))
	if m == nil || slices.Contains(strings.Split(m[2], "/"), "..") {
		r.fail("<source>: a foreign repository: want path=\"{NAME}/path\", where NAME is one of the definition's mirrors")
		return
	}
	base, err := r.mirror(m[1])
	if err != nil {
		r.fail("<source>: %w", err)
		return
	}
	r.repository.mirror, r.repository.path = m[1], strings.Trim(m[2], "/")
	r.repositories = append(r.repositories, r.repository)
	setAttr(t, "path", strings.TrimRight(base, "/")+m[2])
}

// skip passes over the element that has begun.
func (r *renderer) skip() error {
	r.path = r.path[:len(r.path)-1]
	return r.in.Skip()
}

// replaceElement writes text in place of what the element that has begun holds.
func (r *renderer) replaceElement(name, text string) error {
	return errors.Join(r.skip(), r.element(name, text))
}

func (r *renderer) element(name, text string, attrs ...xml.Attr) error {
	start := xml.StartElement{Name: xml.Name{Local: name}, Attr: attrs}
	return errors.Join(r.out.EncodeToken(start), r.out.EncodeToken(xml.CharData(text)), r.out.EncodeToken(start.End()))
}

// complete checks what only the whole description shows.
func (r *renderer) complete() {
	for _, path := range []string{"image/preferences/version", "image/preferences/type", "image/repository/source", "image/packages"} {
		if r.seen[path] == 0 {
			r.errs = append(r.errs, fmt.Errorf("no <%s> in <%s>", path[strings.LastIndex(path, "/")+1:], path[:strings.LastIndex(path, "/")]))
		}
	}
	if r.seen["image/preferences/version"] > 1 {
		r.errs = append(r.errs, errors.New("more than one <version>"))
	}
	if !slices.Contains(managers, r.manager) {
		r.errs = append(r.errs, fmt.Errorf("<packagemanager>: want one of %s", strings.Join(managers, ", ")))
	}
	for _, p := range r.profiles {
		if !r.profile[p] {
			r.errs = append(r.errs, fmt.Errorf("profiles: the description has no profile %q", p))
		}
	}
}

func attr(t xml.StartElement, name string) string {
	for _, a := range t.Attr {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

func setAttr(t *xml.StartElement, name, value string) {
	t.Attr = slices.DeleteFunc(t.Attr, func(a xml.Attr) bool { return a.Name.Local == name })
	t.Attr = append(t.Attr, xml.Attr{Name: xml.Name{Local: name}, Value: value})
}
