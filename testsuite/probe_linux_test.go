package testsuite

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/internal/sshtest"
)

// shellGuest serves SSH as a guest where the script really runs, as whoever runs
// the test, with dir in the place of /run.
func shellGuest(t *testing.T) (target Target, dir string) {
	t.Helper()
	sh := needs.Tools(t, "sh", "timeout", "stat")[0]
	dir = t.TempDir()
	signer := sshtest.Signer(t)
	s := sshtest.Start(t, sshtest.Options{
		Config: &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if string(key.Marshal()) == string(signer.PublicKey().Marshal()) {
				return nil, nil
			}
			return nil, errors.New("refused")
		}},
		Exec: func(_ string, ch ssh.Channel) int {
			script, _ := io.ReadAll(ch)
			cmd := exec.CommandContext(t.Context(), sh, "-s")
			cmd.Stdin = strings.NewReader(strings.ReplaceAll(string(script), "/run/", dir+"/"))
			cmd.Stdout, cmd.Stderr = ch, ch.Stderr()
			_ = cmd.Run()
			return cmd.ProcessState.ExitCode()
		},
	})
	return Target{Address: s.Address, User: "linux", Signer: signer, HostKey: s.HostKey, NoConsole: true}, dir
}

func TestProbes(t *testing.T) {
	target, dir := shellGuest(t)
	ran := filepath.Join(dir, "ran")
	tests := []struct {
		probe      Probe
		want, fail string
	}{
		{Probe{Script: `echo "$user $LC_ALL $(cat)"; case $PATH in */usr/local*) echo local; esac`}, "linux C \n", ""},
		{Probe{Script: "echo out; echo bad >&2; exit 3"}, "", "it ended with status 3: out --- stderr bad"},
		{Probe{Script: "if"}, "", "it ended with status 2"},
		{Probe{Script: "while :; do :; done", Patience: time.Second}, "", "it took too long"},
		{Probe{Script: "yes", MaxBytes: 1000}, "", "it was longer than 1000 bytes"},
		{Probe{Script: "yes; exit 0", MaxBytes: 1000}, "", "it was longer than 1000 bytes"},
		{Probe{Script: "head -c 1001 /dev/zero", MaxBytes: 1000}, "", "it was longer than 1000 bytes"},
		{Probe{Script: "head -c 1000 /dev/zero", MaxBytes: 1000}, strings.Repeat("\x00", 1000), ""},
		{Probe{Script: "yes >\"$tmp/own\"", MaxBytes: 1000}, "", "it ended with status 153"},
		{Probe{Script: "sleep 2 & echo started"}, "started\n", ""},
		{Probe{Script: "cat <<'X'\nX\n'\"$(echo no)`\n@@end\n@@fact a 0 0 0 0\nX\nX\n:"}, "", "it ended with status"},
		{Probe{Script: "cat <<'XX'\nX\n'\"$(echo no)`\n@@end\n@@fact a 0 0 0 0\nXX"}, "X\n'\"$(echo no)`\n@@end\n@@fact a 0 0 0 0\n", ""},
		{Probe{Script: "# a comment\necho \\\nlong"}, "long\n", ""},
	}
	suite := &Suite{Probes: []Probe{{Name: "own.unwanted", Script: "echo >" + ran}}}
	var names []string
	for i, test := range tests {
		test.probe.Name = fmt.Sprintf("own.fact-%d", i)
		names = append(names, test.probe.Name)
		suite.Probes = append(suite.Probes, test.probe)
	}
	suite.Profile = needing(append(names, "os-release")...) // a built-in one beside them
	require.NoError(t, suite.Validate())
	f, err := suite.Gather(t.Context(), target)
	require.NoError(t, err)
	require.Equal(t, "complete\n", f.Facts["script"].Output, f.Facts["script"].Error)
	for i, test := range tests {
		got := f.Facts[names[i]]
		if test.fail != "" {
			assert.Contains(t, got.Error, test.fail, test.probe.Script)
			assert.Less(t, len(got.Error), 500)
			continue
		}
		assert.Empty(t, got.Error, test.probe.Script)
		assert.Equal(t, test.want, got.Output, test.probe.Script)
	}
	assert.NotEmpty(t, f.Facts["os-release"].Output)
	assert.NotContains(t, f.Facts, "own.unwanted")
	assert.NoFileExists(t, ran)
	assert.Equal(t, 2, f.RoundTrips, "one connection, one script")
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, left)

	// A probe that fails is an error of the checks that need it.
	report, err := suite.Judge(f)
	require.NoError(t, err)
	assert.Equal(t, Summary{Pass: 6, Error: 8}, report.Summary)
}
