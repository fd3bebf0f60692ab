package boots

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandboxtest"
)

// good is what good machines give.
const good = `boot first up as the sandbox makes it
machine-id first 11111111111111111111111111111111
hostkey first SHA256:a
hostkey first SHA256:b
seed first aa /var/lib/systemd/random-seed
root first 8000000000 8589934592
password first 12 62
watched first
boot second up virtio-scsi, configdrive
machine-id second 22222222222222222222222222222222
hostkey second SHA256:c
hostkey second SHA256:d
seed second bb /var/lib/systemd/random-seed
root second 8000000000 8589934592
password second 12 62
time second 5000 0 60000
blame second 12345 cloud-init.service
data second user-data applied
data second vendor-data applied
boot restarted up powered off and started with a larger disk
machine-id restarted 22222222222222222222222222222222
hostkey restarted SHA256:c
hostkey restarted SHA256:d
seed restarted cc /var/lib/systemd/random-seed
time restarted 6000 0 40000
root restarted 9000000000 9663676416
judged restarted 3
boot flavor up nvme, e1000e, openstack, 1 processors
hostkey flavor SHA256:f
boot moved up the disk of flavor as another instance
hostkey moved SHA256:m
boot alone up none
before second 5000 0 50000
before restarted 5000 0 35000
`

func verdicts(t *testing.T, text string, params testsuite.Params) map[string]testsuite.Result {
	t.Helper()
	suite := testsuite.Suite{Profile: testsuite.Profile{Name: "boots", Checks: Checks()}, Params: params}
	report, err := suite.Judge(testsuite.Facts{Facts: map[string]testsuite.Fact{FactName: {Output: text}}})
	require.NoError(t, err)
	out := map[string]testsuite.Result{}
	for _, r := range report.Checks {
		out[r.ID] = r
	}
	return out
}

func TestChecks(t *testing.T) {
	for name, row := range map[string]struct {
		old, new string
		status   testsuite.Status
		checks   string // all that do not pass
		found    string
	}{
		"good":                    {},
		"one machine-id":          {old: "22222222222222222222222222222222", new: "11111111111111111111111111111111", status: testsuite.Fail, checks: "boots.machine-id", found: "first and second"},
		"one host key of two":     {old: "SHA256:d", new: "SHA256:b", status: testsuite.Fail, checks: "boots.host-keys", found: "SHA256:b"},
		"one seed":                {old: "second bb", new: "second aa", status: testsuite.Fail, checks: "boots.random-seed", found: "aa"},
		"no seed":                 {old: "seed ", new: "unknown ", status: testsuite.Skipped, checks: "boots.random-seed"},
		"one password":            {old: "password second 12 62", new: "password second 12 62\npassword-of second first", status: testsuite.Fail, checks: "boots.password", found: "the same"},
		"a short password":        {old: "password second 12 62", new: "password second 10 62", status: testsuite.Fail, checks: "boots.password", found: "second: 10 of 62 symbols, 60 bits"},
		"a password of digits":    {old: "password first 12 62", new: "password first 16 10", status: testsuite.Fail, checks: "boots.password", found: "53 bits"},
		"no password":             {old: "password second", new: "unknown second", status: testsuite.Error, checks: "boots.password"},
		"no password is shown":    {old: "password second 12 62", new: "watched second", status: testsuite.Fail, checks: "boots.password", found: "second: its console shows none"},
		"keys are taken along":    {old: "hostkey moved SHA256:m", new: "hostkey moved SHA256:f", status: testsuite.Fail, checks: "boots.identity-changes", found: "both have SHA256:f"},
		"nothing is taken":        {old: "boot moved up", new: "nothing moved", status: testsuite.Skipped, checks: "boots.identity-changes"},
		"worse a week later":      {old: "judged restarted 3", new: "worse restarted net.listeners-tcp 0.0.0.0:8099\njudged restarted 3", status: testsuite.Fail, checks: "boots.stays-good", found: "net.listeners-tcp: 0.0.0.0:8099"},
		"not judged again":        {old: "judged restarted 3", new: "", status: testsuite.Skipped, checks: "boots.stays-good"},
		"nothing to judge":        {old: "judged restarted 3", new: "judged restarted 0", status: testsuite.Error, checks: "boots.stays-good"},
		"slower":                  {old: "before second 5000 0 50000\nbefore restarted 5000 0 35000", new: "before second 5000 0 37000\nbefore restarted 5000 0 20000", status: testsuite.Fail, checks: "boots.time", found: "second: 65.0 s, cloud-init.service 12.3 s (after the kernel 1.62 times of before); restarted"},
		"one is slower":           {old: "0 60000", new: "0 100000", status: testsuite.Pass},
		"a slower host":           {old: "5000 0 60000", new: "10000 0 120000", status: testsuite.Pass},
		"not timed before":        {old: "before", new: "ignored", status: testsuite.Skipped, checks: "boots.time"},
		"not timed":               {old: "time ", new: "ignored ", status: testsuite.Skipped, checks: "boots.time"},
		"strange times":           {old: "0 60000", new: "0 0", status: testsuite.Pass},
		"keys are made anew":      {old: "restarted SHA256:d", new: "restarted SHA256:e", status: testsuite.Fail, checks: "boots.identity-stays", found: "SHA256:e"},
		"a key more":              {old: "hostkey restarted SHA256:d", new: "hostkey restarted SHA256:d\nhostkey restarted SHA256:e", status: testsuite.Fail, checks: "boots.identity-stays", found: "SHA256:e"},
		"another machine-id":      {old: "machine-id restarted 2", new: "machine-id restarted 3", status: testsuite.Fail, checks: "boots.identity-stays", found: "machine-id was"},
		"user-data":               {old: "user-data applied", new: "user-data missing", status: testsuite.Fail, checks: "boots.user-data", found: "second"},
		"vendor-data":             {old: "vendor-data applied", new: "vendor-data missing", status: testsuite.Fail, checks: "boots.vendor-data", found: "second"},
		"root does not grow":      {old: "root restarted 9000000000", new: "root restarted 8000000000", status: testsuite.Fail, checks: "boots.root-grows", found: "7629 MiB, after 7629 MiB"},
		"a panic":                 {old: "boot second", new: "console first Kernel panic - not syncing\nboot second", status: testsuite.Fail, checks: "boots.console", found: "first: Kernel panic"},
		"no console":              {old: "watched first\n", new: "", status: testsuite.Skipped, checks: "boots.console"},
		"a machine does not boot": {old: "boot restarted", new: "boot uefi failed the guest never answered\nboot restarted", status: testsuite.Fail, checks: "boots.started", found: "uefi: the guest never answered"},
		"nothing":                 {old: good, new: "", status: testsuite.Error, checks: "boots.console boots.started boots.machine-id boots.host-keys boots.random-seed boots.password boots.identity-stays boots.user-data boots.vendor-data boots.root-grows boots.identity-changes boots.stays-good boots.time"},
	} {
		t.Run(name, func(t *testing.T) {
			text := good
			if row.old != "" {
				require.Contains(t, text, row.old)
				text = strings.ReplaceAll(text, row.old, row.new)
				if row.old == "22222222222222222222222222222222" {
					text = strings.Replace(good, "machine-id second "+row.old, "machine-id second "+row.new, 1)
					text = strings.Replace(text, "machine-id restarted "+row.old, "machine-id restarted "+row.new, 1)
				}
			}
			for id, r := range verdicts(t, text, testsuite.Params{}) {
				want := testsuite.Pass
				if strings.Contains(" "+row.checks+" ", " "+id+" ") {
					want = row.status
					assert.Contains(t, r.Found, row.found)
				}
				assert.Equal(t, want, r.Status, "%s: %s%s", id, r.Reason, r.Found)
			}
		})
	}
	assert.Equal(t, testsuite.Skipped, verdicts(t, good, testsuite.Params{LVM: true})["boots.root-grows"].Status)
}

// A box makes machines of recorded facts, whatever they are asked to be.
type box struct {
	started atomic.Int32
	fail    error
}

func (b *box) Boot(ctx context.Context, image sandbox.Image) (*sandbox.Machine, error) {
	b.started.Add(1)
	if b.fail != nil && image.Variant.Disk != "" {
		return nil, b.fail
	}
	v := image.Variant
	image.Variant = sandbox.Variant{}
	m, err := sandboxtest.Sandbox{}.Boot(ctx, image)
	if err == nil && v.Disk != "" {
		m.Target.Password += "x"
		m.Restart = func(context.Context, sandbox.Restart) error { return errors.New("it does not come back") }
		m.Console = func() string { return "[ 1.0] fine\n\x1b[31mKernel panic - not syncing: \u202eX\n" }
	}
	return m, err
}

func fact(t *testing.T, b sandbox.Sandbox, set Set) testsuite.Fact {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.qcow2")
	require.NoError(t, sandboxtest.WriteImage(path, 4<<30))
	image := sandbox.Image{Path: path}
	others := Start(t.Context(), Config{Sandbox: b, Image: image, Set: set, UEFI: true})
	defer func() { assert.NoError(t, others.Close()) }()
	image.Variant = others.First
	m, err := b.Boot(t.Context(), image)
	require.NoError(t, err)
	defer func() { assert.NoError(t, m.Close()) }()
	facts := testsuite.Facts{Facts: sandboxtest.Good()}
	f, err := others.Fact(t.Context(), m, facts)
	require.NoError(t, err)
	return f
}

func TestFact(t *testing.T) {
	b := new(box)
	text := fact(t, b, All).Output
	assert.EqualValues(t, 5, b.started.Load())
	assert.NotContains(t, text, "sandboxtest-T4kQ9w", "the password is in the fact")
	assert.Contains(t, text, "boot second up virtio-scsi, configdrive\n")
	assert.Contains(t, text, "boot flavor up nvme, e1000e, openstack, 1 processors\n")
	assert.Contains(t, text, "boot uefi up uefi, 4 processors\n")
	assert.Contains(t, text, "boot alone up none\n")
	assert.Contains(t, text, "boot restarted failed it does not come back\n")
	assert.Contains(t, text, "console second [31mKernel panic - not syncing: X\n")
	v := verdicts(t, text, testsuite.Params{})
	for _, id := range []string{"boots.started", "boots.machine-id", "boots.host-keys", "boots.console"} { // all machines are the recorded one
		assert.Equal(t, testsuite.Fail, v[id].Status, id)
	}
	assert.Equal(t, testsuite.Error, v["boots.identity-stays"].Status)
}

// What a machine says of its boot is not trusted.
func TestTimes(t *testing.T) {
	const stamps = "InitRDTimestampMonotonic=0\nUserspaceTimestampMonotonic=5500000\nFinishTimestampMonotonic=65500000\n"
	for name, row := range map[string]struct{ said, want string }{
		"usual":       {stamps + " 1min 2.5s cloud-init.service\n   812ms ssh.service\n", "blame x 62500 cloud-init.service\nblame x 812 ssh.service\ntime x 5500 0 60000\n"},
		"a dracut":    {strings.Replace(stamps, "=0", "=2000000", 1), "time x 2000 3500 60000\n"},
		"not over":    {strings.Replace(stamps, "=65500000", "=0", 1), ""},
		"no systemd":  {"sh: systemctl: not found\n", ""},
		"no times":    {"InitRDTimestampMonotonic=a\nUserspaceTimestampMonotonic=99999999999999999999\n -1x y.service\n", ""},
		"many":        {strings.Repeat("1s a.service\n", 100), strings.Repeat("blame x 1000 a.service\n", maxBlame)},
		"hostile":     {"1s \x1b[2J\u202ea\n", "blame x 1000 [2J a\n"},
		"nothing":     {"", ""},
		"a line only": {"=", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var w writer
			w.time("x", testsuite.Facts{Facts: map[string]testsuite.Fact{timeFact: {Output: row.said}}})
			assert.Equal(t, row.want, w.text.String())
		})
	}
	var w writer
	w.before("boot x up\ntime x 1 2 3\nworse x y\n")
	assert.Equal(t, "before x 1 2 3\n", w.text.String())
}

// What passed on the first machine only is worse; what the first fails, its own check tells.
func TestJudgedAgain(t *testing.T) {
	check := func(id string, needs ...string) testsuite.Check {
		return testsuite.Check{ID: id, Needs: needs, Judge: func(f testsuite.Facts, _ testsuite.Params) testsuite.Verdict {
			if text, _ := f.Text(needs[0]); strings.Contains(text, id) {
				return testsuite.Verdict{Status: testsuite.Fail, Found: "bad\n\x1b" + id}
			}
			return testsuite.Verdict{Status: testsuite.Pass}
		}}
	}
	suite := judgedAgain(&testsuite.Suite{
		Profile: testsuite.Profile{Checks: []testsuite.Check{check("a", "sockets"), check("b", "users", "sudo"), check("c", "files", "users"), check("d", "sockets")}},
		Waivers: []testsuite.Waiver{{Check: "c"}},
	})
	require.Len(t, suite.Profile.Checks, 3)
	judge := func(sockets string) *testsuite.Report {
		r, err := suite.Judge(testsuite.Facts{Facts: map[string]testsuite.Fact{"sockets": {Output: sockets}, "users": {Output: "x"}, "sudo": {Output: "x"}}})
		require.NoError(t, err)
		return r
	}
	var w writer
	w.judged("restarted", judge("d"), judge("a d"))
	assert.Equal(t, "worse restarted a bad a\njudged restarted 2\n", w.text.String())
	assert.Nil(t, judgedAgain(nil))
	assert.Nil(t, judgedAgain(&testsuite.Suite{Profile: testsuite.Profile{Checks: []testsuite.Check{check("c", "files")}}}))
}

func TestNoOtherMachine(t *testing.T) {
	assert.NotEmpty(t, fact(t, sandboxtest.Sandbox{}, Default).Omitted)

	text := fact(t, &box{fail: fmt.Errorf("the root\nis not found")}, Default).Output
	assert.Contains(t, text, "boot second failed the root is not found\n")
	v := verdicts(t, text, testsuite.Params{})
	assert.Equal(t, testsuite.Fail, v["boots.started"].Status)
	assert.Equal(t, testsuite.Error, v["boots.machine-id"].Status)
}

func TestClosedBeforeTheyAreThere(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	others := Start(ctx, Config{Sandbox: new(box), Image: sandbox.Image{Path: "none"}})
	cancel()
	_, err := others.Fact(ctx, nil, testsuite.Facts{})
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, others.Close())
}

func TestSets(t *testing.T) {
	for text, want := range map[string]Set{"": Default, "default": Default, "all": All} {
		var s Set
		require.NoError(t, s.UnmarshalText([]byte(text)))
		assert.Equal(t, want, s)
	}
	assert.ErrorContains(t, new(Set).UnmarshalText([]byte("most")), "want default or all")
}

// rebooted counts how often its machines are started once more.
type rebooted struct {
	times atomic.Int32
	fail  error
}

func (b *rebooted) Boot(ctx context.Context, image sandbox.Image) (*sandbox.Machine, error) {
	image.Variant = sandbox.Variant{}
	m, err := sandboxtest.Sandbox{}.Boot(ctx, image)
	if err == nil {
		m.Restart = func(context.Context, sandbox.Restart) error { return nil }
		m.Reboot = func(context.Context) error { b.times.Add(1); return b.fail }
	}
	return m, err
}

func TestExtraReboot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image.qcow2")
	require.NoError(t, sandboxtest.WriteImage(path, 4<<30))
	for _, row := range []struct {
		extra     bool
		fail      error
		times     int32
		restarted bool
	}{{false, nil, 0, true}, {true, nil, 2, true}, {true, errors.New("it does not come back"), 1, false}} {
		b := &rebooted{fail: row.fail}
		c := Config{Sandbox: b, Image: sandbox.Image{Path: path, Logger: slog.New(slog.DiscardHandler)}, ExtraReboot: row.extra}
		s := c.look(t.Context(), c.plans("id")[0])
		assert.Equal(t, row.times, b.times.Load())
		assert.Equal(t, row.restarted, s.restarted != nil)
		assert.ErrorIs(t, s.err, row.fail)
	}
}
