package testsuite

import (
	"slices"
	"strings"
)

// OTC returns the profile "otc": what the Open Telekom Cloud's image factory
// promises of its images. Its checks are for a machine on its first boot.
func OTC() Profile {
	checks := slices.Concat(sshdChecks(), sysctlChecks(), userChecks(), consoleChecks(), networkChecks(),
		serviceChecks(), cloudInitChecks(), diskChecks(), driverChecks(), updateChecks(), identityChecks())
	for i := range checks {
		checks[i].Group, _, _ = strings.Cut(checks[i].ID, ".")
	}
	return Profile{Name: "otc", Checks: checks}
}
