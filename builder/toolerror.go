package builder

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
)

// ToolError says that an external tool failed.
type ToolError struct {
	Tool    string
	Phase   string   // what the tool was doing, as far as its log tells; may be empty
	Err     error    // how it ended; an *ExitError has the status
	Tail    []string // its last lines, bounded
	LogFile string   // the local file with all of its output; may be empty
}

func (e *ToolError) Error() string {
	s := cmp.Or(e.Tool, "a tool") + " failed"
	if e.Phase != "" {
		s += " in " + e.Phase
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	if cause := e.Cause(); cause != "" {
		s += ": " + cause
	}
	if line := e.reason(); line != "" {
		s += ": " + line
	}
	if e.LogFile != "" {
		s += " (its log is " + e.LogFile + ")"
	}
	return s
}

func (e *ToolError) Unwrap() error { return e.Err }

// causes are what known failures of builds say, the more likely root first: a full
// disk makes much else fail.
var causes = []struct {
	name  string
	lines *regexp.Regexp
}{
	{"disk full", regexp.MustCompile(`No space left on device|not enough free space|don't have enough free space`)},
	{"out of memory", regexp.MustCompile(`Cannot allocate memory|[Oo]ut of memory`)},
	{"loop devices exhausted", regexp.MustCompile(`cannot find an unused loop device|failed to set up loop device`)},
	{"description not valid", regexp.MustCompile(`KiwiDescriptionInvalid|KiwiSchemaImportError|KiwiDescriptionConflict`)},
	{"element missing", regexp.MustCompile(`MissingElementException|Element '[^']*' not found`)},
	{"index expired", regexp.MustCompile(`(?i)Release file .*(is expired|invalid since)`)},
	{"signing key expired", regexp.MustCompile(`EXPKEYSIG|KEYEXPIRED|EXPSIG|key .*expired`)},
	{"not signed by a trusted key", regexp.MustCompile(`NO_PUBKEY|BADSIG|ERRSIG|signed by unknown key|is not signed|(?i)signature verification failed|GPG check FAILED`)},
	{"mirror unreachable", regexp.MustCompile(`Failed getting release file|Failed to fetch|Could not resolve|Unable to connect|Could not connect|Connection refused|Couldn't download|Cannot download|Download \(curl\) error`)},
	{"package missing or in conflict", regexp.MustCompile(`unmet dependencies|held broken packages|Unable to locate package|has no installation candidate|conflicting requests|nothing provides|No match for argument|not found in package names`)},
}

// Cause names what is known to make builds fail, by the last lines: "disk
// full", "out of memory", "loop devices exhausted", "description not
// valid", "element missing", "index expired", "signing key expired", "not signed by a
// trusted key", "mirror unreachable", "package missing or in conflict"; else "".
func (e *ToolError) Cause() string {
	for _, c := range causes {
		if slices.ContainsFunc(e.Tail, c.lines.MatchString) {
			return c.name
		}
	}
	return ""
}

// reason is the line of the tail that most likely says why: the first error of
// apt or debootstrap, whose later ones follow from it; else the last line that
// reads like an error; else the last.
func (e *ToolError) reason() string {
	if i := slices.IndexFunc(e.Tail, aptError.MatchString); i >= 0 {
		return strings.TrimSpace(e.Tail[i])
	}
	for _, line := range slices.Backward(e.Tail) {
		if likelyReason.MatchString(line) {
			return strings.TrimSpace(line)
		}
	}
	if n := len(e.Tail); n > 0 {
		return strings.TrimSpace(e.Tail[n-1])
	}
	return ""
}

var (
	aptError     = regexp.MustCompile(`^E: `)
	likelyReason = regexp.MustCompile(`(?i)^error: |(Exception|Error): |No space left|cannot |failed`)
)
