package testsuite_test

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

// A check is a value: a profile of one's own has the checks that one writes,
// on the facts that Gather reads, and those of OTC that one picks.
func ExampleSuite_Judge() {
	noCompiler := testsuite.Check{
		ID: "packages.no-compiler", Group: "packages", Severity: testsuite.Low,
		Title: "no compiler is installed",
		Needs: []string{"packages"},
		Judge: func(f testsuite.Facts, _ testsuite.Params) testsuite.Verdict {
			text, err := f.Text("packages")
			if err != nil {
				return testsuite.Verdict{Status: testsuite.Error, Reason: err.Error()}
			}
			v := testsuite.Verdict{Status: testsuite.Pass, Expected: "no gcc", Found: "no gcc"}
			if strings.Contains(text, " gcc ") {
				v.Status, v.Found = testsuite.Fail, "gcc"
			}
			return v
		},
	}
	suite := testsuite.Suite{
		Profile: testsuite.Profile{Name: "mine", Checks: []testsuite.Check{noCompiler}},
		Waivers: []testsuite.Waiver{{Check: "packages.no-compiler", Reason: "builds kernel modules",
			Expires: time.Date(2027, 6, 30, 0, 0, 0, 0, time.UTC)}},
		Now: func() time.Time { return time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC) },
	}
	// Facts that were gathered before and loaded with LoadFacts.
	facts := testsuite.Facts{Facts: map[string]testsuite.Fact{"packages": {Output: "ii  gcc 4:12.2.0-3\n"}}}
	report, err := suite.Judge(facts)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, c := range report.Checks {
		fmt.Printf("%s %s: %s\n", c.Status, c.ID, c.Reason)
	}
	fmt.Println("good:", report.OK())
	// Output:
	// waived packages.no-compiler: builds kernel modules (until 2027-06-30)
	// good: false
}

// The profile can be listed without a machine.
func ExampleOTC() {
	profile := testsuite.OTC()
	fmt.Println(profile.Name, profile.Checks[0].ID)
	fmt.Println(profile.Checks[0].Title)
	// Output:
	// otc sshd.password-authentication
	// sshd accepts no passwords
}

func ExampleReport_WriteText() {
	report := testsuite.Report{
		Profile: "otc", Host: "127.0.0.1:2222", Started: time.Date(2026, 11, 22, 3, 15, 7, 0, time.UTC), DurationMS: 20536,
		Checks: []testsuite.Result{{ID: "ntp.running", Title: "exactly one time daemon runs and starts at boot",
			Status: testsuite.Fail, Expected: "one time daemon, active and enabled", Found: "none"}},
		Summary: testsuite.Summary{Fail: 1},
	}
	if err := report.WriteText(os.Stdout); err != nil {
		fmt.Println(err)
	}
	// Output:
	// profile otc on 127.0.0.1:2222, 2026-11-22T03:15:07Z, 20.5 s
	//
	// fail    ntp.running                      exactly one time daemon runs and starts at boot
	//         expected: one time daemon, active and enabled
	//         found:    none
	//
	// 1 checks: 0 pass, 1 fail, 0 error, 0 waived, 0 skipped
}
