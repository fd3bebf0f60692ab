package testsuite

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Status is the outcome of one check.
type Status string

// The six outcomes. Only Pass, Waived and Skipped let an image through, and Flaky
// where the first run had not decided: see [Suite.Rerun].
const (
	Pass    Status = "pass"    // as expected
	Fail    Status = "fail"    // read, and not as expected
	Error   Status = "error"   // could not be read or judged
	Waived  Status = "waived"  // fails, and a valid waiver says why that is accepted
	Skipped Status = "skipped" // does not apply, for the reason given
	Flaky   Status = "flaky"   // passed when it was tried again, and not before
)

// Severity says how much a failing check matters.
type Severity string

// The severities, ascending.
const (
	Low      Severity = "low"
	Medium   Severity = "medium"
	High     Severity = "high"
	Critical Severity = "critical"
)

// rank orders the severities; what is none is 0.
func (s Severity) rank() int {
	return 1 + slices.Index([]Severity{Low, Medium, High, Critical}, s)
}

// UnmarshalText accepts the four severities, and nothing for none.
func (s *Severity) UnmarshalText(text []byte) error {
	if Severity(text).rank() == 0 && len(text) > 0 {
		return fmt.Errorf("cannot take severity %q: want low, medium, high or critical", text)
	}
	*s = Severity(text)
	return nil
}

// A Verdict is what a check finds.
type Verdict struct {
	Status   Status
	Reason   string // why, for Error and Skipped; may be empty otherwise
	Expected string // what should have been there
	Found    string // what was there
}

// A Check is one thing that an image is held to.
type Check struct {
	ID         string   // group.name, lower case, stable over releases: sshd.permit-root-login
	Group      string   // the part of ID before its dot
	Title      string   // what holds when the check passes, one line
	Why        string   // what goes wrong when it does not
	Severity   Severity //
	References []string // where the demand comes from
	// Needs names the facts that Judge reads. Where one of them is missing,
	// was cut or could not be read, the check's status is Error and Judge is
	// not called.
	Needs []string
	// Judge is pure: the same facts and parameters give the same verdict.
	Judge func(Facts, Params) Verdict
}

// A Profile is an ordered list of checks under a name.
type Profile struct {
	Name   string
	Checks []Check
}

// Params is what checks need to know of an image's definition. The zero
// value of a field is its documented default.
type Params struct {
	User string // login user; "" is "linux"
	// Hostname is the local-hostname that the machine was given by its data
	// source. If empty, host name handling is skipped.
	Hostname string
	// NTPServers are exactly the time servers that the image must have
	// configured. If empty, the check of them is an error: an image without
	// an expectation is a mistake in the definition.
	NTPServers []string
	DiskBytes  int64 // the image's virtual size
	// OverlayBytes is the size of the disk that the machine was given. If it
	// is not larger than DiskBytes, growing the root file system is skipped.
	OverlayBytes     int64
	RequiredPackages []string // packages that must be installed, by name
	// LVM says that the root file system is on a logical volume. Such a one is
	// found by its volume's name, and it is for its owner to grow.
	LVM        bool
	UVPMonitor UVPMonitor
	// Repositories are exactly those that the image must have registered as
	// update sources. If empty, the check of them is an error, unless NoRepositories.
	Repositories []Repository
	// NoRepositories says that the image must have none registered.
	NoRepositories bool
	// PackageKeys are fingerprints of keys that may sign packages beside the
	// distribution's own, which need not be named.
	PackageKeys []string
	// MirrorHosts are hosts, as they stand in a URL (with a port if there is
	// one), that must not be left in the image's package sources: the mirrors
	// it was built from. Hosts that Repositories name too are allowed.
	MirrorHosts []string
	// Declared are the files that the definition brings beside packages, in the
	// form of package ledger's ParseRules. What is not in it is nobody's.
	Declared string
}

// Repository is a source of updates. The machine's apt must have each of the suites
// and components, and no other ones of that URL.
type Repository struct {
	URL        string
	Suites     []string // if empty, only the URL is compared
	Components []string // if empty, main
}

func (p Params) user() string {
	if p.User == "" {
		return "linux"
	}
	return p.User
}

// UVPMonitor says whether an image carries Huawei's monitoring agent.
type UVPMonitor struct {
	State  UVPState
	Reason string // why it is so; it becomes the reason of a skipped check
}

// UVPState is what a definition demands of uvp-monitor.
type UVPState string

// The states of UVPMonitor. The zero value is UVPRequired.
const (
	UVPRequired  UVPState = "required"  // installed, enabled, running
	UVPOptional  UVPState = "optional"  // either way is good
	UVPForbidden UVPState = "forbidden" // must not be installed
)

// UnmarshalText accepts the three states.
func (s *UVPState) UnmarshalText(text []byte) error {
	switch v := UVPState(text); v {
	case UVPRequired, UVPOptional, UVPForbidden:
		*s = v
		return nil
	}
	return fmt.Errorf("cannot take uvp-monitor state %q: want required, optional or forbidden", text)
}

// A Waiver accepts a failing check for a time.
type Waiver struct {
	Check   string    // the check's ID
	Reason  string    // why the failure is accepted; must not be empty
	Expires time.Time // the waiver holds before this moment; must not be zero
}

// UnknownCheckError says that a waiver names a check which its profile does
// not have.
type UnknownCheckError struct {
	Profile string
	Check   string
}

func (e *UnknownCheckError) Error() string {
	return fmt.Sprintf("cannot waive check %q: profile %q has no such check", e.Check, e.Profile)
}

// MarshalJSON is there to keep a Check's function out of JSON.
func (c Check) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		ID         string   `json:"id"`
		Group      string   `json:"group"`
		Title      string   `json:"title"`
		Why        string   `json:"why"`
		Severity   Severity `json:"severity"`
		References []string `json:"references"`
		Needs      []string `json:"needs"`
	}{c.ID, c.Group, c.Title, c.Why, c.Severity, c.References, c.Needs})
}
