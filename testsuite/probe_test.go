package testsuite

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/opentelekomcloud/go-imagefactory/internal/sshtest"
)

// needing is a profile with one check for each fact.
func needing(facts ...string) Profile {
	p := Profile{Name: "own"}
	for _, name := range facts {
		p.Checks = append(p.Checks, Check{ID: "own." + name, Group: "own", Needs: []string{name},
			Judge: func(f Facts, _ Params) Verdict { return passed(f.text(name)) }})
	}
	return p
}

func TestProbeMistakes(t *testing.T) {
	long := strings.Repeat("x", 65)
	full := Probe{Script: ":", MaxBytes: maxFact}
	many := make([]Probe, 9)
	for i := range many {
		many[i] = full
		many[i].Name = fmt.Sprint("own.", i)
	}
	for _, test := range []struct {
		probes []Probe
		fault  string
	}{
		{[]Probe{{Name: "", Script: ":"}}, "its name"},
		{[]Probe{{Name: "own fact", Script: ":"}}, "its name"},
		{[]Probe{{Name: "Own", Script: ":"}}, "its name"},
		{[]Probe{{Name: "own;reboot", Script: ":"}}, "its name"},
		{[]Probe{{Name: "own\n", Script: ":"}}, "its name"},
		{[]Probe{{Name: "../own", Script: ":"}}, "its name"},
		{[]Probe{{Name: long, Script: ":"}}, "its name"},
		{[]Probe{{Name: "sysctl", Script: ":"}}, "a built-in fact's"},
		{[]Probe{{Name: "script", Script: ":"}}, "a built-in fact's"},
		{[]Probe{{Name: "console", Script: ":"}}, "a built-in fact's"},
		{[]Probe{{Name: "wire-own", Script: ":"}}, "a built-in fact's"},
		{[]Probe{{Name: "own", Script: ":"}, {Name: "own", Script: ":"}}, "another of that name"},
		{[]Probe{{Name: "own", Script: " \n"}}, "no script"},
		{[]Probe{{Name: "own", Script: "a\x00b"}}, "a NUL"},
		{[]Probe{{Name: "own", Script: strings.Repeat("#", maxProbeScript+1)}}, "more than 65536 bytes"},
		{[]Probe{{Name: "own", Script: ":", Patience: time.Millisecond}}, "its patience"},
		{[]Probe{{Name: "own", Script: ":", Patience: -time.Second}}, "its patience"},
		{[]Probe{{Name: "own", Script: ":", Patience: time.Hour}}, "its patience"},
		{[]Probe{{Name: "own", Script: ":", MaxBytes: -1}}, "its bound"},
		{[]Probe{{Name: "own", Script: ":", MaxBytes: maxFact + 1}}, "its bound"},
		{many, "cannot use 9 probes of 2359296 bytes"},
	} {
		suite := &Suite{Profile: OTC(), Probes: test.probes}
		require.ErrorContains(t, suite.Validate(), test.fault)
		_, err := suite.Gather(t.Context(), Target{User: "linux", Signer: sshtest.Signer(t), HostKey: sshtest.Signer(t).PublicKey()})
		require.ErrorContains(t, err, test.fault)
	}
}

// Where only the wire is asked nobody logs in, and no key is needed.
func TestGatherWire(t *testing.T) {
	g := startGuest(t, "", 0)
	suite := &Suite{Profile: needing("wire-algorithms", "wire-password")}
	target := Target{Address: g.Address, User: "linux", HostKey: g.HostKey, NoConsole: true}
	f, err := suite.Gather(t.Context(), target)
	require.NoError(t, err)
	assert.Empty(t, g.Commands())
	assert.Equal(t, 2, f.RoundTrips)
	assert.Contains(t, f.Facts["wire-password"].Output, "login refused\noffered publickey")
	assert.Contains(t, f.Facts["wire-algorithms"].Output, "hostkey ssh-ed25519")
	assert.NotContains(t, f.Facts, "script")
	suite.Profile = needing("wire-root")
	_, err = suite.Gather(t.Context(), target)
	require.ErrorContains(t, err, "needs a signer")
}

// A server that would take a password is seen although nobody knows a right one.
func TestGatherWithoutConsole(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{Config: &ssh.ServerConfig{
		PasswordCallback: func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) { return nil, errors.New("wrong") },
	}})
	suite := &Suite{Profile: OTC()}
	f, err := suite.Gather(t.Context(), Target{Address: s.Address, User: "linux", Signer: sshtest.Signer(t), HostKey: s.HostKey, NoConsole: true})
	require.NoError(t, err)
	r := results(t, suite, f)
	assert.Equal(t, Fail, r["sshd.password-login"].Status, r["sshd.password-login"].Reason)
	assert.Equal(t, Skipped, r["console.password-hint"].Status)
	assert.Equal(t, Skipped, r["console.password-secret"].Status)
	assert.Contains(t, r["console.password-secret"].Reason, "not seen")
	g := gatherer{target: Target{NoConsole: true}}
	assert.NotContains(t, g.scriptFacts(), "console-secret")
}

// The script runs on the connection that the target brings, which stays open.
func TestGatherOnAConnection(t *testing.T) {
	g := startGuest(t, "@@end\n", 0)
	client, err := ssh.Dial("tcp", g.Address, &ssh.ClientConfig{
		User: "linux", Auth: []ssh.AuthMethod{ssh.PublicKeys(g.target.Signer)}, HostKeyCallback: ssh.FixedHostKey(g.HostKey),
	})
	require.NoError(t, err)
	defer client.Close()
	g.target.Client = client
	f, err := (&Suite{}).Gather(t.Context(), g.target)
	require.NoError(t, err)
	assert.Equal(t, "complete\n", f.Facts["script"].Output, f.Facts["script"].Error)
	assert.Equal(t, 6, f.RoundTrips)
	_, err = client.NewSession()
	require.NoError(t, err)
}
