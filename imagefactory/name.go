package imagefactory

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Class is the prefix of an image's name: who made it and for whom.
type Class string

// The classes of public images.
const (
	Standard   Class = "Standard"   // without a commercial subscription
	Enterprise Class = "Enterprise" // with a subscription from the vendor
	Community  Class = "Community"  // built elsewhere, with no or minor changes
	Beta       Class = "Beta"       // not yet promised
	CCE        Class = "CCE"        // for the nodes of the container engine
)

var classes = []Class{Standard, Enterprise, Community, Beta, CCE}

// UnmarshalText implements [encoding.TextUnmarshaler]; an unknown class is an
// error.
func (c *Class) UnmarshalText(text []byte) error {
	if !slices.Contains(classes, Class(text)) {
		return fmt.Errorf("cannot read class %q: known are %v", text, classes)
	}
	*c = Class(text)
	return nil
}

// maxNameLength is what IMS allows.
const maxNameLength = 128

// CheckName reports what in a name the Image Management Service would refuse:
// 1 to 128 letters, digits, '-', '.', '_' and spaces, with no space at either
// end (IMS API reference, image attributes).
func CheckName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("cannot use an empty image name")
	case len(name) > maxNameLength:
		return fmt.Errorf("cannot use image name %.40q…: %d bytes are more than %d", name, len(name), maxNameLength)
	case name[0] == ' ' || name[len(name)-1] == ' ':
		return fmt.Errorf("cannot use image name %q: a space at either end", name)
	}
	for i, r := range name {
		if !nameRune(r) {
			return fmt.Errorf("cannot use image name %q: %q at byte %d is none of letters, digits, '-', '.', '_' and space", name, r, i)
		}
	}
	return nil
}

func nameRune(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-._ ", r)
}

// A Name is an image's name in its parts: Standard_CentOS_7_BMS_latest is
// {Standard, "CentOS_7_BMS", {Kind: Latest}}. Names are comparable with ==. The
// zero Name is no name.
type Name struct {
	Class  Class  // empty for private images that have none
	System string // distribution, version and variants: CentOS_7_BMS, Debian_12_amd64_bios
	Suffix Suffix // the zero Suffix for none
}

// A Suffix tells the registrations of one image apart.
type Suffix struct {
	Kind Kind

	// For Dated alone:
	Build int    // the build number of names before 2018-06, 0 for none
	Date  string // YYYYMMDD, UTC
	Count int    // counts the releases of a day
}

// A Kind is the kind of a suffix.
type Kind int

// The kinds in the order of age, the oldest first. Unversioned images are not
// rotated.
const (
	Unversioned Kind = iota
	Dated            // NAME_YYYYMMDD_n, older NAME_BUILD_YYYYMMDD_n
	Prev             // NAME_prev
	Latest           // NAME_latest
)

var (
	datedSuffix = regexp.MustCompile(`_([0-9]{8})_([0-9]+)$`)
	buildSuffix = regexp.MustCompile(`_([0-9]+)$`)
	hasDigit    = regexp.MustCompile(`[0-9]`)
)

// ParseName reads an image's name. Any name that [CheckName] allows is read,
// except one with a suffix that only looks like a date, such as _20171340_0;
// what has no known class or suffix is all system. [Name.String] gives the name
// back.
//
// A number before the date is taken for a build number if what is before it
// has a digit already: Standard_CentOS_7_134_20171211_0 is build 134 of
// CentOS_7, but Standard_Fedora_26_20171021_0 is Fedora_26.
func ParseName(text string) (Name, error) {
	if err := CheckName(text); err != nil {
		return Name{}, err
	}
	n := Name{System: text}
	for _, class := range classes {
		if rest, ok := strings.CutPrefix(text, string(class)+"_"); ok {
			n.Class, n.System = class, rest
		}
	}
	if err := n.cutSuffix(); err != nil {
		return Name{}, fmt.Errorf("cannot parse image name %q: %w", text, err)
	}
	if n.System == "" {
		return Name{}, fmt.Errorf("cannot parse image name %q: nothing between class and suffix", text)
	}
	return n, nil
}

func (n *Name) cutSuffix() error {
	if system, ok := strings.CutSuffix(n.System, "_latest"); ok {
		n.System, n.Suffix.Kind = system, Latest
		return nil
	}
	if system, ok := strings.CutSuffix(n.System, "_prev"); ok {
		n.System, n.Suffix.Kind = system, Prev
		return nil
	}
	m := datedSuffix.FindStringSubmatch(n.System)
	if m == nil {
		return nil
	}
	if _, err := time.Parse(dateLayout, m[1]); err != nil {
		return fmt.Errorf("%s is no date", m[1])
	}
	count, err := number(m[2])
	if err != nil {
		return err
	}
	n.Suffix = Suffix{Kind: Dated, Date: m[1], Count: count}
	n.System = n.System[:len(n.System)-len(m[0])]
	if b := buildSuffix.FindStringSubmatch(n.System); b != nil {
		system := n.System[:len(n.System)-len(b[0])]
		build, err := number(b[1])
		if err == nil && build > 0 && hasDigit.MatchString(system) {
			n.System, n.Suffix.Build = system, build
		}
	}
	return nil
}

// number reads a decimal number in the one form in which it is written.
func number(digits string) (int, error) {
	v, err := strconv.Atoi(digits)
	if err != nil || strconv.Itoa(v) != digits {
		return 0, fmt.Errorf("%q is not a number in its shortest form", digits)
	}
	return v, nil
}

const dateLayout = "20060102"

// String returns the name as it is registered.
func (n Name) String() string {
	s := n.System
	if n.Class != "" {
		s = string(n.Class) + "_" + s
	}
	switch n.Suffix.Kind {
	case Latest:
		s += "_latest"
	case Prev:
		s += "_prev"
	case Dated:
		if n.Suffix.Build > 0 {
			s += "_" + strconv.Itoa(n.Suffix.Build)
		}
		s += "_" + n.Suffix.Date + "_" + strconv.Itoa(n.Suffix.Count)
	}
	return s
}

// Base returns the name without its suffix.
func (n Name) Base() Name {
	n.Suffix = Suffix{}
	return n
}

// Latest returns the name of the current registration.
func (n Name) Latest() Name {
	n.Suffix = Suffix{Kind: Latest}
	return n
}

// Prev returns the name of the registration before the current one.
func (n Name) Prev() Name {
	n.Suffix = Suffix{Kind: Prev}
	return n
}

// Dated returns the name of the count-th registration of t's day in UTC.
func (n Name) Dated(t time.Time, count int) Name {
	n.Suffix = Suffix{Kind: Dated, Date: t.UTC().Format(dateLayout), Count: count}
	return n
}

// variants are the parts of a system that are not its distribution or version.
var variants = []string{"BMS", "FPGA", "V100", "TSI", "JeOS", "Docker", "SAP", "SAPHANA", "extended", "XEN", "KVM", "vGPU", "pGPU", "v100", "amd64", "arm64", "bios", "uefi"}

// Variants returns what the name says of an image beyond distribution and
// version, in order: SAPHANA and BMS of SLES12_SP1_SAPHANA_BMS, amd64 and bios
// of Debian_12_amd64_bios. Nil if there are none.
func (n Name) Variants() []string {
	var out []string
	for part := range strings.SplitSeq(n.System, "_") {
		if slices.Contains(variants, part) {
			out = append(out, part)
		}
	}
	return out
}

// Compare orders names by class, by system with numbers as numbers (Debian_9
// before Debian_10), and by age, the oldest first: unversioned, dated by date
// and count, prev, latest. It is for [slices.SortFunc].
func (n Name) Compare(other Name) int {
	return cmp.Or(
		strings.Compare(string(n.Class), string(other.Class)),
		compareNatural(n.System, other.System),
		cmp.Compare(n.Suffix.Kind, other.Suffix.Kind),
		strings.Compare(n.Suffix.Date, other.Suffix.Date),
		cmp.Compare(n.Suffix.Count, other.Suffix.Count),
		cmp.Compare(n.Suffix.Build, other.Suffix.Build),
	)
}

// compareNatural compares runs of digits as numbers and the rest as bytes.
func compareNatural(a, b string) int {
	restA, restB := a, b
	for restA != "" && restB != "" {
		numberA, numberB := digits(restA), digits(restB)
		if numberA == "" || numberB == "" {
			if restA[0] != restB[0] {
				return cmp.Compare(restA[0], restB[0])
			}
			restA, restB = restA[1:], restB[1:]
			continue
		}
		x, y := strings.TrimLeft(numberA, "0"), strings.TrimLeft(numberB, "0")
		if c := cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(x, y)); c != 0 {
			return c
		}
		restA, restB = restA[len(numberA):], restB[len(numberB):]
	}
	// Equal numbers may be written differently: the bytes decide last.
	return cmp.Or(cmp.Compare(len(restA), len(restB)), strings.Compare(a, b))
}

func digits(s string) string {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return s[:i]
		}
	}
	return s
}

// MarshalText implements [encoding.TextMarshaler]. A name that IMS would refuse
// is an error.
func (n Name) MarshalText() ([]byte, error) {
	text := n.String()
	return []byte(text), CheckName(text)
}

// UnmarshalText implements [encoding.TextUnmarshaler] with [ParseName].
func (n *Name) UnmarshalText(text []byte) error {
	v, err := ParseName(string(text))
	if err != nil {
		return err
	}
	*n = v
	return nil
}
