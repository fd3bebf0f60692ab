package ledger

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

// recordedFacts are those of a good Debian 12; of its files only some.
func recordedFacts(t *testing.T) testsuite.Facts {
	t.Helper()
	f, err := os.Open("../testdata/debian12.json")
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	facts, err := testsuite.LoadFacts(f)
	require.NoError(t, err)
	return facts
}

func TestLiveChecks(t *testing.T) {
	line := func(fields ...string) string { return strings.Join(fields, "\t") + "\n" }
	const declared = "# The definition's.\nf 0644 root:root /etc/otc/user content=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\nl * root:root /etc/systemd/system/apt-daily.timer target=/dev/null\n"
	for _, tc := range []struct {
		fact, text string // what is said beside the good machine's
		check      string // which fails; if empty, none does
		found      string
	}{
		{check: ""},
		{"files", line("unowned", "f", "644", "root", "root", "x", emptyDigest, "-", "/etc/otc/user", "-"), "", ""},
		{"files", line("unowned", "f", "644", "root", "root", "x", "y", "-", "/etc/otc/user", "-"), "files.others", "changed /etc/otc/user"},
		{"files", line("unowned", "f", "644", "root", "root", "x", "y", "copy=/usr/share/base-files/motd", "/etc/motd", "-"), "", ""},
		{"files", line("unowned", "f", "644", "root", "root", "x", "y", "copy=/usr/share/doc/motd", "/etc/motd", "-"), "files.startup", "changed /etc/motd"},
		{"files", line("changed", "f", "644", "root", "root", "x", "-", "-", "/etc/pam.d/sshd", "-"), "files.access", "changed /etc/pam.d/sshd"},
		{"files", line("changed", "f", "4755", "root", "root", "x", "-", "-", "/usr/bin/sudo", "-"), "files.others", "changed /usr/bin/sudo"},
		{"files", line("missing", "f", "-", "-", "-", "-", "-", "-", "/usr/lib/udev/rules.d/60-x.rules", "-"), "files.startup", "missing /usr/lib/udev"},
		{"files", line("special", "f", "4755", "root", "root", "-", "-", "-", "/usr/bin/find", "-"), "files.powers", "/usr/bin/find"},
		{"files", line("special", "f", "755", "root", "root", "-", "-", "capability=cap_setuid=ep", "/usr/bin/find", "-"), "files.powers", "cap_setuid"},
		{"files", line("special", "f", "4755", "www-data", "root", "-", "-", "-", "/usr/bin/su", "-"), "files.powers", "/usr/bin/su"},
		{"files", line("unowned", "l", "777", "root", "root", "-", "-", "package", "/etc/systemd/system/sysinit.target.wants/debug-shell.service", "/lib/systemd/system/debug-shell.service"), "files.startup", "no package's script enables debug-shell.service"},
		{"files", line("unowned", "l", "777", "root", "root", "-", "-", "package", "/etc/systemd/system/multi-user.target.wants/ssh.service", "/lib/systemd/system/ssh.service"), "", ""},
		{"files", line("unowned", "d", "755", "root", "root", "-", "-", "-", "/opt/empty", "-"), "files.others", "/opt/empty"},
		{"files", "what\n", "files.access", "cannot understand"},
		{"units", "\nId=x.service\nFragmentPath=/run/systemd/transient/x.service\nTransient=yes\n", "units.loaded", "x.service is transient"},
		{"units", "\nId=x.service\nFragmentPath=/usr/lib/systemd/system/x.service\nDropInPaths=/run/systemd/system/x.service.d/a.conf\n", "units.loaded", "is of /run/systemd/system/x.service.d/a.conf"},
		{"units", "\nId=x.service\nFragmentPath=/usr/lib/systemd/system/x.service\nNeedDaemonReload=yes\n", "units.loaded", "x.service is not what its files say"},
		{"units", "\ndisabled /etc/systemd/system/timers.target.wants/fstrim.timer\n", "units.loaded", "fstrim.timer is not enabled"},
		{"units", "\ndisabled /etc/systemd/system/timers.target.wants/apt-daily.timer\n", "", ""},
		{"running", "900 0 /system.slice/x.service unowned /opt/x\n", "units.processes", "its program is no package's"},
		{"running", "900 0 /system.slice/x.service deleted /usr/bin/x (deleted)\n", "units.processes", "its program is deleted"},
		{"running", "900 0 /system.slice/x.service package /usr/bin/dash\n+900 script -c while", "units.processes", "interprets"},
		{"running", "900 0 /system.slice/x.service package /usr/bin/python3.11\n+900 script /tmp/x.py", "units.processes", "/tmp/x.py"},
		{"running", "900 0 /system.slice/x.service package /usr/bin/python3.11\n+900 script -Es /usr/bin/x", "", ""},
		{"running", "900 0 /system.slice/x.service package /usr/bin/sleep\n+900 maps /tmp/x.so\n", "units.processes", "has mapped /tmp/x.so"},
		{"running", "900 0 /user.slice/user-1000.slice/session-9.scope package /usr/bin/sleep\n", "units.processes", "left behind"},
	} {
		facts := recordedFacts(t)
		fact := facts.Facts[tc.fact]
		fact.Output += tc.text
		facts.Facts[tc.fact] = fact
		for _, c := range LiveChecks() {
			v := c.Judge(facts, testsuite.Params{Declared: declared})
			switch {
			case c.ID == tc.check:
				assert.NotEqual(t, testsuite.Pass, v.Status, "%s %s", c.ID, tc.text)
				assert.Contains(t, v.Found+v.Reason, tc.found, tc.text)
			case tc.found != "cannot understand":
				assert.Equal(t, testsuite.Pass, v.Status, "%s %s: %+v", c.ID, tc.text, v)
			}
		}
	}
	facts := recordedFacts(t)
	facts.Facts["os-release"] = testsuite.Fact{Output: "ID=fedora\n"}
	for _, c := range LiveChecks() {
		if c.ID != "units.loaded" {
			assert.Equal(t, testsuite.Skipped, c.Judge(facts, testsuite.Params{}).Status, c.ID)
		}
	}
}
