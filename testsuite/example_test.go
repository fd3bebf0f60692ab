package testsuite_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandboxtest"
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

// A check of one's own reads a fact of one's own: a probe's, which runs on the
// machine with the built-in ones. Here the machine is recorded, and so is what the
// probe would say.
func ExampleProbe() {
	probe := testsuite.Probe{Name: "own.motd", Script: "cat /etc/motd", Patience: 10 * time.Second, MaxBytes: 4 << 10}
	check := testsuite.Check{
		ID: "own.motd", Group: "own", Severity: testsuite.Low, Needs: []string{"own.motd"},
		Title: "the message of the day names the owner",
		Judge: func(f testsuite.Facts, _ testsuite.Params) testsuite.Verdict {
			text, err := f.Text("own.motd")
			switch {
			case err != nil:
				return testsuite.Verdict{Status: testsuite.Error, Reason: err.Error()}
			case !strings.Contains(text, "Example Inc."):
				return testsuite.Verdict{Status: testsuite.Fail, Expected: "Example Inc.", Found: strings.TrimSpace(text)}
			}
			return testsuite.Verdict{Status: testsuite.Pass}
		},
	}
	suite := testsuite.Suite{
		Profile: testsuite.Profile{Name: "own", Checks: []testsuite.Check{check}},
		Probes:  []testsuite.Probe{probe},
	}

	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	image := filepath.Join(dir, "image.qcow2")
	if err := sandboxtest.WriteImage(image, 4<<30); err != nil {
		fmt.Println(err)
		return
	}
	facts := sandboxtest.Good()
	facts["own.motd"] = testsuite.Fact{Output: "Welcome.\n"}
	machine, err := sandboxtest.Sandbox{Facts: facts}.Boot(context.Background(), sandbox.Image{Path: image})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer machine.Close()
	report, err := suite.Run(context.Background(), machine.Target)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, c := range report.Checks {
		fmt.Printf("%s %s: want %s, found %s\n", c.Status, c.ID, c.Expected, c.Found)
	}
	// Output:
	// fail own.motd: want Example Inc., found Welcome.
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
	// 1 checks: 0 pass, 1 fail, 0 error, 0 waived, 0 skipped, 0 flaky
}
