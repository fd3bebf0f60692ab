package testsuite

// OTC returns the profile "otc": what the Open Telekom Cloud's image factory
// promises of its images.
func OTC() Profile {
	return Profile{Name: "otc", Checks: []Check{cloudInitFinished}}
}

var cloudInitFinished = Check{
	ID: "cloud-init.finished", Group: "cloud-init", Severity: High,
	Title: "cloud-init ran to its end without errors",
	Needs: []string{"cloud-init"},
	Judge: func(f Facts, _ Params) Verdict { return Verdict{Status: Pass} },
}
