package testsuite

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A Probe reads a fact of one's own, for checks of one's own: see Suite.Probes.
type Probe struct {
	// Name is the fact's: lower-case letters, digits, dots and dashes, at most 64,
	// and none of the built-in names. Those never have a dot.
	Name string
	// Script is POSIX sh, of at most 64 KiB. It runs as root with nothing on its
	// standard input, in LC_ALL=C and without /usr/local in PATH; $user is the login
	// user, and $tmp a directory that goes when all facts are read. What it writes
	// to its standard output is the fact. Where it ends with another status than 0,
	// the fact is an error with the end of its standard error.
	Script string
	// Patience is how long the script may take, from one second to 10 minutes. If
	// zero, 45 seconds. Then it is killed, and the fact is an error.
	Patience time.Duration
	// MaxBytes is how much the script may say, at most 256 KiB. If zero, 64 KiB.
	// A script that says more is killed, and the fact is an error. No file that it
	// writes may be much longer either.
	MaxBytes int
}

// Bounds of a suite's probes.
const (
	defaultProbeBytes = 64 << 10
	maxProbeBytes     = 2 << 20 // of all probes together; maxScriptOut has room for them
	maxProbes         = 100     // maxFactCount has room for them
	maxProbeScript    = 64 << 10
	maxProbePatience  = 10 * time.Minute
)

var (
	probeName  = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,63}$`)
	scriptFact = regexp.MustCompile(`(?m)^fact ([a-z0-9-]+)`)
)

// builtinScriptFacts are the facts of gatherScript, in its order.
func builtinScriptFacts() []string {
	var names []string
	for _, m := range scriptFact.FindAllStringSubmatch(gatherScript, -1) {
		names = append(names, m[1])
	}
	return names
}

func (p Probe) maxBytes() int {
	if p.MaxBytes == 0 {
		return defaultProbeBytes
	}
	return p.MaxBytes
}

func (p Probe) seconds() int {
	if p.Patience == 0 {
		return factPatience
	}
	return int((p.Patience + time.Second - 1) / time.Second)
}

// validateProbes reports every mistake in the suite's probes.
func (s *Suite) validateProbes() error {
	var errs []error
	builtin := append(builtinScriptFacts(), "script", "console", "login-key")
	seen := map[string]bool{}
	total := 0
	for _, p := range s.Probes {
		fault := ""
		switch {
		case !probeName.MatchString(p.Name):
			fault = "its name is not one of lower-case letters, digits, dots and dashes, at most 64"
		case slices.Contains(builtin, p.Name) || strings.HasPrefix(p.Name, "wire-"):
			fault = "its name is a built-in fact's"
		case seen[p.Name]:
			fault = "there is another of that name"
		case strings.TrimSpace(p.Script) == "":
			fault = "it has no script"
		case len(p.Script) > maxProbeScript || strings.Contains(p.Script, "\x00"):
			fault = fmt.Sprintf("its script has a NUL or more than %d bytes", maxProbeScript)
		case p.Patience != 0 && p.Patience < time.Second || p.Patience > maxProbePatience:
			fault = fmt.Sprintf("its patience is not from 1s to %s", maxProbePatience)
		case p.MaxBytes < 0 || p.MaxBytes > maxFact:
			fault = fmt.Sprintf("its bound is not from 1 to %d bytes", maxFact)
		}
		if fault != "" {
			errs = append(errs, fmt.Errorf("cannot use probe %.70q: %s", p.Name, fault))
		}
		seen[p.Name] = true
		total += p.maxBytes()
	}
	if len(s.Probes) > maxProbes || total > maxProbeBytes {
		errs = append(errs, fmt.Errorf("cannot use %d probes of %d bytes: want at most %d, of %d bytes together", len(s.Probes), total, maxProbes, maxProbeBytes))
	}
	return errors.Join(errs...)
}

// probesScript goes between gatherScript and its last line.
func probesScript(probes []Probe) string {
	var b strings.Builder
	for _, p := range probes {
		end := "X" // made longer until it is nowhere in the script
		for strings.Contains(p.Script, end) {
			end += "X"
		}
		fmt.Fprintf(&b, "fact %s %d %d <<'%s'\n%s\n%s\n", p.Name, p.seconds(), p.maxBytes(), end, p.Script, end)
	}
	return b.String()
}
