package testsuite

import (
	"slices"
	"strings"
)

// OTC returns the profile "otc": what the Open Telekom Cloud's image factory
// promises of its images. Its checks are for a machine on its first boot.
func OTC() Profile {
	checks := slices.Concat(sshdChecks(), sysctlChecks(), kernelChecks(), userChecks(), consoleChecks(), networkChecks(),
		serviceChecks(), timeChecks(), cloudInitChecks(), diskChecks(), agentChecks(), driverChecks(), updateChecks(), identityChecks(), []Check{gatherComplete()})
	for i := range checks {
		checks[i].Group, _, _ = strings.Cut(checks[i].ID, ".")
	}
	return Profile{Name: "otc", Checks: checks}
}

// gatherComplete says once why facts are missing, where all of them are.
func gatherComplete() Check {
	return Check{
		ID: "gather.complete", Severity: Critical, Needs: []string{"script"},
		Title: "the facts of the machine could be read, to their end",
		Why:   "What was not seen is not known to be good.", References: []string{"OTC image factory introduction: the images are automatically tested"},
		Judge: func(f Facts, _ Params) Verdict { return want("complete", strings.TrimSpace(f.text("script"))) },
	}
}
