package testsuite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/internal/sshtest"
)

const testPassword = "cOrRecthOrse42"

// fakeGuest serves SSH as a guest whose script says output and ends with
// status.
type fakeGuest struct {
	*sshtest.Server
	target Target

	mu    sync.Mutex
	stdin []string
}

var beginLine = regexp.MustCompile(`@@begin [A-Z2-7]{26}`)

// What a machine said in another run is no answer.
func TestGatherRefusesReplay(t *testing.T) {
	g := startGuest(t, "@@begin AAAAAAAAAAAAAAAAAAAAAAAAAA\n@@fact users 0 0 0 1\nx\n@@end\n", 0)
	f, err := (&Suite{}).Gather(t.Context(), g.target)
	require.NoError(t, err)
	assert.Contains(t, f.Facts["script"].Error, "it may be a replay")
	assert.NotContains(t, f.Facts, "users")
}

func startGuest(t *testing.T, output string, status int) *fakeGuest {
	t.Helper()
	return startChangingGuest(t, func(int) string { return output }, status)
}

// startChangingGuest starts a guest whose script says something else each time, the
// first time being 1.
func startChangingGuest(t *testing.T, says func(time int) string, status int) *fakeGuest {
	t.Helper()
	g := &fakeGuest{}
	signer := sshtest.Signer(t)
	g.Server = sshtest.Start(t, sshtest.Options{
		Config: &ssh.ServerConfig{PublicKeyCallback: func(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if c.User() == "linux" && string(key.Marshal()) == string(signer.PublicKey().Marshal()) {
				return nil, nil
			}
			return nil, errors.New("refused")
		}},
		Exec: func(_ string, ch ssh.Channel) int {
			in, _ := io.ReadAll(ch)
			g.mu.Lock()
			g.stdin = append(g.stdin, string(in))
			output := says(len(g.stdin))
			g.mu.Unlock()
			if string(in) == restoreScript {
				return 0
			}
			if !strings.HasPrefix(output, "@@begin") {
				output = beginLine.FindString(string(in)) + "\n" + output
			}
			_, _ = io.WriteString(ch, output)
			_, _ = io.WriteString(ch.Stderr(), "complaint")
			return status
		},
	})
	g.target = Target{Address: g.Address, User: "linux", Signer: signer, HostKey: g.HostKey, Password: testPassword}
	return g
}

func TestGather(t *testing.T) {
	text := "holds " + testPassword + "\n"
	g := startGuest(t, "@@fact leak 0 0 12 "+fmt.Sprint(len(text))+"\n"+text+"\n@@fact late 124 0 6000 0\n\n@@end\n", 0)
	suite := &Suite{Now: func() time.Time { return time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC) }}
	f, err := suite.Gather(t.Context(), g.target)
	require.NoError(t, err)
	assert.Equal(t, g.Address, f.Host)
	assert.Equal(t, "2026-11-22T03:00:00Z", f.Started.Format(time.RFC3339))
	assert.Equal(t, Fact{Output: "holds [redacted]\n", DurationMS: 120}, f.Facts["leak"])
	assert.Equal(t, Fact{Error: "it took too long: ", DurationMS: 60000}, f.Facts["late"])
	assert.Equal(t, "password shown\n", f.Facts["console"].Output)
	assert.Equal(t, "complete\n", f.Facts["script"].Output)
	assert.Contains(t, f.Facts["wire-root"].Output, "login refused\noffered publickey\ntried none,publickey")
	assert.Contains(t, f.Facts["wire-password"].Output, "login refused\noffered publickey")
	assert.Contains(t, f.Facts["wire-algorithms"].Output, "hostkey ssh-ed25519")
	assert.Equal(t, 6, f.RoundTrips) // four connections, two commands
	assert.Equal(t, []string{"sudo -n sh -s", "sudo -n sh -s"}, g.Commands())
	assert.Contains(t, g.stdin[0], "forms='"+testPassword+"\n")
	assert.Equal(t, restoreScript, g.stdin[1])
}

// Whatever goes wrong, no check passes on it and root's file is put back.
func TestGatherFailures(t *testing.T) {
	for _, tc := range []struct {
		name, output string
		status       int
		reason       string
	}{
		{"no sudo", "", 1, "the script ended with status 1: complaint"},
		{"cut", "@@fact users 0 0 1 5\nroo", 0, "cannot read fact users of 5 bytes"},
		{"no end", "@@fact users 0 0 1 1\nx\n", 0, "the output ends early"},
		{"frozen", "", -1, "context deadline exceeded"},
		{"nonsense", "welcome to the machine\n", 0, `cannot read fact header "welcome to the machine"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := startGuest(t, tc.output, tc.status)
			suite := &Suite{Profile: OTC(), GatherTimeout: time.Minute}
			if tc.status < 0 {
				suite.GatherTimeout = 500 * time.Millisecond
			}
			f, err := suite.Gather(t.Context(), g.target)
			require.NoError(t, err)
			assert.Contains(t, f.Facts["script"].Error, tc.reason)
			g.mu.Lock()
			assert.Equal(t, restoreScript, g.stdin[len(g.stdin)-1])
			g.mu.Unlock()
			report, err := suite.Judge(f)
			require.NoError(t, err)
			for _, r := range report.Checks {
				// Only what the wire showed before may pass.
				if !strings.HasPrefix(r.ID, "sshd.offered-") && r.ID != "sshd.password-login" && r.ID != "sshd.terrapin" && r.ID != "console.password-hint" {
					assert.NotEqual(t, Pass, r.Status, r.ID)
				}
			}
			assert.False(t, report.OK())
		})
	}
}

func TestGatherUnreachable(t *testing.T) {
	g := startGuest(t, "", 0)
	target := g.target
	target.HostKey = sshtest.Signer(t).PublicKey()
	f, err := (&Suite{}).Gather(t.Context(), target)
	require.NoError(t, err)
	assert.Contains(t, f.Facts["script"].Error, "cannot trust host key")
	assert.Contains(t, f.Facts["wire-password"].Error, "cannot trust host key")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = (&Suite{}).Gather(ctx, g.target)
	require.ErrorIs(t, err, context.Canceled)

	target.User = "linux; reboot"
	_, err = (&Suite{}).Gather(t.Context(), target)
	require.ErrorContains(t, err, "a plain user name")
}

func TestParseFactsHeaders(t *testing.T) {
	for _, tc := range []struct{ in, fault string }{
		{"@@end\n", ""},
		{"@@fact a 0 0 0 0\n\n@@end\n", ""},
		{"@@fact a 0 0 0 0\n\n@@fact a 0 0 0 0\n\n@@end\n", "is there twice"},
		{"@@fact a 0 0 0 99999999\n", "are more than"},
		{"@@fact a 0 0 0 -1\n", "cannot read fact header"},
		{"@@fact a 0 0 0\n", "cannot read fact header"},
		{"@@fact ../x 0 0 0 0\n\n", "cannot read fact header"},
		{strings.Repeat("x", 1000) + "\n", "ends early"},
		{func() string {
			var b strings.Builder
			for i := range 300 {
				fmt.Fprintf(&b, "@@fact f%d 0 0 0 0\n\n", i)
			}
			return b.String()
		}(), "more than 200"},
	} {
		err := parseFacts(strings.NewReader(tc.in), map[string]Fact{})
		if tc.fault == "" {
			assert.NoError(t, err)
		} else {
			assert.ErrorContains(t, err, tc.fault)
		}
	}
}

func FuzzParseFacts(f *testing.F) {
	f.Add("@@fact a 0 0 1 3\nabc\n@@fact b 124 1 0 0\n\n@@end\n")
	f.Fuzz(func(t *testing.T, in string) {
		facts := map[string]Fact{}
		_ = parseFacts(strings.NewReader(in), facts)
		total := 0
		for name, fact := range facts {
			if !plainName(name) || fact.DurationMS < 0 {
				t.Errorf("%q: %+v", name, fact)
			}
			total += len(fact.Output)
		}
		if total > 3*len(in) { // an invalid byte becomes three
			t.Errorf("%d bytes from %d", total, len(in))
		}
	})
}

// Judges take every text: hostile facts give verdicts, not panics.
func FuzzJudges(f *testing.F) {
	f.Add("tcp LISTEN 0 128 [::]:22 [::]:* users:((\"sshd\",pid=1,fd=3))\nroot 0 /bin/sh locked -\n")
	f.Add("### /etc/x\nserver\nNTP=\n{}\nlogin refused\nkex \n")
	f.Add("holds readable 644\nnet/ipv4/ip_forward x\nlist\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, c := range OTC().Checks {
			facts := Facts{Facts: map[string]Fact{}}
			for _, need := range c.Needs {
				facts.Facts[need] = Fact{Output: text}
			}
			r := judge(c, facts, goodParams())
			if r.Status == "" || r.Status == Waived {
				t.Errorf("%s gives %q", c.ID, r.Status)
			}
		}
	})
}

// The script is POSIX sh: dash reads it without running it.
func TestScriptsAreShell(t *testing.T) {
	sh := needs.Tools(t, "sh")[0]
	for _, script := range []string{gatherScript, laterScript, restoreScript} {
		cmd := exec.CommandContext(t.Context(), sh, "-n")
		cmd.Stdin = strings.NewReader(script)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
	}
}

// Every fact that a check needs is one that something gathers.
func TestNeedsAreGathered(t *testing.T) {
	gathered := map[string]bool{"script": true, "console": true, "wire-algorithms": true, "wire-password": true, "wire-root": true, "login-key": true}
	for _, name := range witnessFacts {
		gathered[name] = true
	}
	for line := range strings.Lines(gatherScript) {
		if w := strings.Fields(line); len(w) > 1 && w[0] == "fact" {
			gathered[w[1]] = true
		}
	}
	doc, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	for name := range gathered {
		assert.Regexp(t, `(?m)^//\t`+name+` +\S`, string(doc), "the package's documentation lacks a fact")
	}
	// Of imagefactory.EvidenceFrom and ledger.LiveChecks.
	used := map[string]bool{"architecture": true, "files": true, "units": true, "running": true}
	for _, c := range OTC().Checks {
		assert.NotEmpty(t, c.Needs, c.ID)
		for _, need := range c.Needs {
			assert.True(t, gathered[need], "%s needs %s", c.ID, need)
			used[need] = true
		}
	}
	for name := range gathered {
		assert.True(t, used[name], "nobody needs %s", name)
	}
}
