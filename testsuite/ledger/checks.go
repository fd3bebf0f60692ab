package ledger

import (
	"fmt"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

// FactName is the fact that Checks need.
const FactName = "disk-files"

// BootFactName is the fact that BootChecks need.
const BootFactName = "disk-after-boot"

// maxFindings is how many findings a fact has of each kind; their number it has
// in any case.
const maxFindings = 500

// Fact is what was found on a disk with so many files, for Checks or BootChecks: a
// line "files NUMBER" and one for each finding.
func Fact(files int, findings []Finding) testsuite.Fact {
	var b strings.Builder
	fmt.Fprintf(&b, "files %d\n", files)
	counts := map[Kind]int{}
	for _, f := range findings {
		if counts[f.Kind]++; counts[f.Kind] <= maxFindings {
			fmt.Fprintln(&b, f)
		}
	}
	for _, kind := range []Kind{Unexplained, Changed, Missing, Permissions, Unsigned, Leaked} {
		if more := counts[kind] - maxFindings; more > 0 {
			fmt.Fprintf(&b, "%s and %d more\n", kind, more)
		}
	}
	return testsuite.Fact{Output: b.String()}
}

const refAuthentic = "OTC image factory introduction: authenticity of the packages is cryptographically verified"

const refConsole = "OTC image factory introduction: the password is shown at the console and not readable by local users"

// Checks hold a disk to its ledger; they need the fact FactName.
func Checks() []testsuite.Check {
	checks := []testsuite.Check{
		{
			ID: "files.explained", Severity: testsuite.Critical,
			Title: "every file is a package's, declared by the definition, or made by a known rule",
			Why:   "A key, a job, a program that nobody put there on purpose is a way in, a leftover or a secret.",
			Judge: judge(FactName, Unexplained),
		},
		{
			ID: "files.unmodified", Severity: testsuite.Critical,
			Title: "every file has the content that its package or its declaration says, and none of a package's is missing",
			Why:   "A program that is not what its maintainers signed does what somebody else wants.",
			Judge: judge(FactName, Changed, Missing),
		},
		{
			ID: "files.permissions", Severity: testsuite.Critical,
			Title: "every file has the mode, owner, capabilities and ACL that its package or its declaration says",
			Why:   "A program with root's powers, or a secret that others read, opens the machine to its users.",
			Judge: judge(FactName, Permissions),
		},
		{
			ID: "files.signed", Severity: testsuite.Critical,
			Title: "every installed package is one that the distribution has signed",
			Why:   "A package from elsewhere, or one that was withdrawn, was verified by nobody.",
			Judge: judge(FactName, Unsigned),
		},
	}
	for i := range checks {
		checks[i].Group, checks[i].Needs, checks[i].References = "files", []string{FactName}, []string{refAuthentic}
	}
	return checks
}

// BootChecks hold what the first boots of an image wrote to its disk to what they
// may write; they need the fact BootFactName.
func BootChecks() []testsuite.Check {
	checks := []testsuite.Check{
		{
			ID: "boot.files-explained", Severity: testsuite.Critical,
			Title: "the first boots write no file but those that a known rule explains",
			Why:   "A key, a job or a program that a boot plants was never on the disk that was accounted for.",
			Judge: judge(BootFactName, Unexplained),
		},
		{
			ID: "boot.files-unmodified", Severity: testsuite.Critical,
			Title: "the first boots change and remove no file of the image, but as a known rule says",
			Why:   "What a boot turns off, replaces or takes away was good only on the disk.",
			Judge: judge(BootFactName, Changed, Missing),
		},
		{
			ID: "boot.files-permissions", Severity: testsuite.Critical,
			Title: "what the first boots write has the mode and owner that its rule says",
			Why:   "A host key that others read is no secret, a log that others write no witness.",
			Judge: judge(BootFactName, Permissions),
		},
		{
			ID: "boot.secret", Severity: testsuite.Critical,
			Title: "the console's password stands in no file but the one of root's that is meant for it",
			Why:   "A service that is broken into would become the login user, and so root.",
			Judge: judge(BootFactName, Leaked),
		},
	}
	for i := range checks {
		checks[i].Group, checks[i].Needs, checks[i].References = "boot", []string{BootFactName}, []string{refAuthentic}
	}
	checks[3].References = []string{refConsole}
	return checks
}

// maxShown is how many findings a verdict names.
const maxShown = 200

func judge(fact string, kinds ...Kind) func(testsuite.Facts, testsuite.Params) testsuite.Verdict {
	return func(f testsuite.Facts, _ testsuite.Params) testsuite.Verdict {
		text, err := f.Text(fact)
		if err != nil {
			return testsuite.Verdict{Status: testsuite.Error, Reason: err.Error()}
		}
		head, rest, _ := strings.Cut(text, "\n")
		var files int
		if _, err := fmt.Sscanf(head, "files %d", &files); err != nil || files == 0 {
			return testsuite.Verdict{Status: testsuite.Error, Reason: "the disk shows no files"}
		}
		var found []string
		for line := range strings.Lines(rest) {
			for _, k := range kinds {
				if text, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), string(k)+" "); ok {
					if k == Missing {
						text = "missing " + text
					}
					found = append(found, text)
				}
			}
		}
		v := testsuite.Verdict{Status: testsuite.Pass, Expected: "none", Found: fmt.Sprintf("none of %d files", files)}
		if len(found) > 0 {
			v.Status, v.Found = testsuite.Fail, strings.Join(found[:min(len(found), maxShown)], "; ")
			if more := len(found) - maxShown; more > 0 {
				v.Found += fmt.Sprintf("; and %d more lines", more)
			}
		}
		return v
	}
}
