package sandboxtest_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandboxtest"
)

// A check of one's own is tried on a machine that has telnetd, and on one that
// has not. ExampleFactory of package imagefactory runs a whole factory.
func ExampleSandbox() {
	noTelnet := testsuite.Profile{Name: "own", Checks: []testsuite.Check{{
		ID: "own.no-telnet", Title: "telnetd is not installed", Severity: testsuite.High, Needs: []string{"packages"},
		Judge: func(f testsuite.Facts, _ testsuite.Params) testsuite.Verdict {
			text, err := f.Text("packages")
			if err != nil {
				return testsuite.Verdict{Status: testsuite.Error, Reason: err.Error()}
			}
			if strings.Contains(text, " telnetd ") {
				return testsuite.Verdict{Status: testsuite.Fail, Expected: "no telnetd", Found: "telnetd"}
			}
			return testsuite.Verdict{Status: testsuite.Pass}
		},
	}}}
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

	bad := sandboxtest.Good()
	bad["packages"] = testsuite.Fact{Output: bad["packages"].Output + "ii  telnetd 0.17\n"}
	for _, box := range []sandboxtest.Sandbox{{}, {Facts: bad}} {
		machine, err := box.Boot(context.Background(), sandbox.Image{Path: image})
		if err != nil {
			fmt.Println(err)
			return
		}
		report, err := (&testsuite.Suite{Profile: noTelnet}).Run(context.Background(), machine.Target)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(report.Checks[0].ID, report.Checks[0].Status)
		if err := machine.Close(); err != nil {
			fmt.Println(err)
			return
		}
	}
	// Output:
	// own.no-telnet pass
	// own.no-telnet fail
}
