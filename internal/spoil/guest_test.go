package spoil_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/internal/spoil"
	"github.com/opentelekomcloud/go-imagefactory/internal/sshconn"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox/network"
)

// imageEnv names the image of examples/nightly. The end-to-end test of the
// module builds one; without it, these tests have nothing to boot.
const imageEnv = "IMAGEFACTORY_TEST_IMAGE"

func testImage(t *testing.T) string {
	t.Helper()
	image := os.Getenv(imageEnv)
	if image == "" {
		t.Skip(imageEnv + " names no image; the end-to-end test has the one that it builds")
	}
	needs.Tools(t, "qemu-system-x86_64", "qemu-img")
	return image
}

// TestLive breaks one running machine in all the ways of the table, a batch at
// once, and takes it back to what it was in between.
func TestLive(t *testing.T) {
	live, reboot := pick(t, spoil.Live), pick(t, spoil.Reboot)
	if len(live)+len(reboot) == 0 {
		t.Skip("no row is meant")
	}
	g := boot(t, testImage(t))
	g.finish(t)
	g.monitor(t, "savevm good")
	g.forget = g.Target.Witness.(*network.Network).Snapshot()
	if *one == "" {
		assert.NoError(t, spoil.Compare(nil, g.judge(t)), "the machine is not good to begin with")
	}
	for i, rows := range live {
		g.spoil(t, fmt.Sprintf("batch %d of %d, %s", i+1, len(live), rows[0].File), rows, nil)
	}
	for i, rows := range reboot {
		g.spoil(t, fmt.Sprintf("reboot %d of %d, %s", i+1, len(reboot), rows[0].File), rows, g.reboot)
	}
	if *one == "" && *files == "" && !t.Failed() {
		assert.ElementsMatch(t, slices.Collect(maps.Keys(spoil.Accompanying)), slices.Collect(maps.Keys(g.accompanied)), "what accompanies a row in Accompanying, and on the machine")
	}
}

// TestDisk boots disks that are broken in those ways of the table that a booted
// machine shows. What the ledger says of them the test of package imagefactory sees.
func TestDisk(t *testing.T) {
	image := testImage(t)
	for _, rows := range pick(t, spoil.OnDisk) {
		if rows = booted(rows); len(rows) == 0 {
			continue
		}
		t.Run(rows[0].Name, func(t *testing.T) {
			g := boot(t, spoil.Disk(t, image, rows))
			assert.NoError(t, spoil.Compare(rows, g.judge(t)))
		})
	}
}

// booted are the rows that a booted machine shows, without what the ledger says.
func booted(rows []spoil.Spoil) []spoil.Spoil {
	var out []spoil.Spoil
	for _, s := range rows {
		fails := map[string]string{}
		for id, text := range s.Fails {
			if !strings.HasPrefix(id, "files.") {
				fails[id] = text
			}
		}
		if s.Fails = fails; len(fails) > 0 {
			out = append(out, s)
		}
	}
	return out
}

// A guest is a machine that can be taken back to what it was.
type guest struct {
	*sandbox.Machine
	client *ssh.Client // of the machine as it is now; nil if there is none
	qmp    net.Conn
	said   *bufio.Scanner
	forget func() // what the network has seen since the machine was saved
	// accompanied are the checks of spoil.Accompanying that rows did not name.
	accompanied map[string]bool
}

// boot starts the sandbox's QEMU with a monitor.
func boot(t *testing.T, image string) *guest {
	t.Helper()
	dir := t.TempDir()
	socket := filepath.Join(dir, "qmp")
	// Its arguments are the sandbox's and one more.
	script := fmt.Sprintf("#!/bin/sh\nexec qemu-system-x86_64 \"$@\" -qmp unix:'%s',server=on,wait=off\n", socket)
	binary := filepath.Join(dir, "qemu")
	require.NoError(t, os.WriteFile(binary, []byte(script), 0o700))
	m, err := sandbox.QEMU{Binary: binary}.Boot(t.Context(), sandbox.Image{
		Path: image, WorkDir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		TimeServers: []string{"ntp01.otc-service.com", "ntp02.otc-service.com"},
	})
	require.NoError(t, err)
	g := &guest{Machine: m, accompanied: map[string]bool{}}
	t.Cleanup(func() {
		g.leave()
		assert.NoError(t, m.Close())
	})
	g.qmp, err = net.Dial("unix", socket)
	require.NoError(t, err)
	g.said = bufio.NewScanner(g.qmp)
	require.True(t, g.said.Scan(), "QEMU's monitor does not greet")
	g.execute(t, `{"execute": "qmp_capabilities"}`)
	return g
}

// execute gives QEMU's monitor a command and returns its answer.
func (g *guest) execute(t *testing.T, command string) string {
	t.Helper()
	_, err := fmt.Fprintln(g.qmp, command)
	require.NoError(t, err)
	for g.said.Scan() {
		var answer struct {
			Return, Error json.RawMessage
		}
		require.NoError(t, json.Unmarshal(g.said.Bytes(), &answer))
		if answer.Return != nil || answer.Error != nil { // and no event
			require.Nil(t, answer.Error, "%s: %s", command, answer.Error)
			return string(answer.Return)
		}
	}
	require.FailNow(t, "QEMU's monitor has ended", "%v", g.said.Err())
	return ""
}

// monitor runs a command of QEMU's human monitor, which says nothing if all is well.
func (g *guest) monitor(t *testing.T, command string) {
	t.Helper()
	line, err := json.Marshal(map[string]any{"execute": "human-monitor-command", "arguments": map[string]string{"command-line": command}})
	require.NoError(t, err)
	require.Equal(t, `""`, g.execute(t, string(line)), command)
}

// leave forgets the connection to a machine that is no more.
func (g *guest) leave() {
	if g.client != nil {
		_ = g.client.Close()
	}
	g.client = nil
}

// patience is how long a machine may take to let its user in, again.
const patience = 10 * time.Minute

func (g *guest) dial(t *testing.T) *ssh.Client {
	t.Helper()
	for deadline := time.Now().Add(patience); g.client == nil; {
		client, err := sshconn.Dial(t.Context(), sshconn.Config{
			Address: g.Target.Address, User: g.Target.User, HostKey: g.Target.HostKey, Auth: []ssh.AuthMethod{ssh.PublicKeys(g.Target.Signer)},
		})
		if err == nil {
			g.client = client
			break
		}
		require.True(t, time.Now().Before(deadline), "%v", err)
		time.Sleep(time.Second)
	}
	return g.client
}

// run runs a script as root.
func (g *guest) run(t *testing.T, script string) (string, error) {
	t.Helper()
	res, err := sshconn.Run(t.Context(), g.dial(t), "sudo -n sh -s", strings.NewReader(script), 1<<20)
	if err == nil && res.ExitStatus != 0 {
		err = fmt.Errorf("status %d: %s", res.ExitStatus, res.Stderr)
	}
	return string(res.Stdout), err
}

// finish waits for the end of the machine's boot: what is broken while it still goes on
// is broken in a way that nobody meant, and each batch would wait for it again.
func (g *guest) finish(t *testing.T) {
	t.Helper()
	_, err := g.run(t, "timeout 600 cloud-init status --wait >/dev/null; timeout 300 systemctl is-system-running --wait >/dev/null || :")
	require.NoError(t, err)
}

// spoil takes the machine back, breaks it and compares what is found.
func (g *guest) spoil(t *testing.T, name string, rows []spoil.Spoil, after func(*testing.T)) {
	if len(rows) == 1 {
		name = rows[0].Name
	}
	t.Run(name, func(t *testing.T) {
		began := time.Now()
		g.leave()
		g.monitor(t, "loadvm good")
		g.forget()
		said, err := g.run(t, spoil.Script(rows))
		require.NoError(t, err)
		assert.Empty(t, said, "a row cannot be done")
		if after != nil {
			after(t)
		}
		g.settle()
		done := time.Now()
		found := g.judge(t)
		assert.NoError(t, spoil.Compare(rows, found))
		for _, check := range spoil.Accompanied(rows, found) {
			g.accompanied[check] = true
		}
		t.Logf("%d rows: done after %s, judged after %s", len(rows), done.Sub(began).Round(time.Second), time.Since(began).Round(time.Second))
	})
}

// settle waits a little for what was started, and until sshd answers, unless
// it was spoiled so that it does not.
func (g *guest) settle() {
	const pause, patience = 3 * time.Second, 30 * time.Second
	time.Sleep(pause)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Second) {
		conn, err := net.Dial("tcp", g.Target.Address)
		if err != nil {
			continue
		}
		_ = conn.SetDeadline(deadline)
		_, err = conn.Read(make([]byte, 1))
		_ = conn.Close()
		if err == nil {
			return
		}
	}
}

// judge holds the machine, as it is now, to the suite. The script's connection is
// the one that is there: who broke sshd is still seen.
func (g *guest) judge(t *testing.T) []spoil.Finding {
	t.Helper()
	s := suite(t)
	s.GatherTimeout = 30 * time.Minute // the machine may be one of several, all emulated
	s.Params.Hostname, s.Params.OverlayBytes, s.Params.DiskBytes = g.Hostname, g.DiskBytes, g.ImageBytes
	target := g.Target
	target.Client = g.dial(t)
	report, err := s.Run(t.Context(), target)
	require.NoError(t, err)
	if testing.Verbose() {
		require.NoError(t, report.WriteText(t.Output()))
	}
	return findings(report)
}

// reboot starts the machine's system anew and waits for it.
func (g *guest) reboot(t *testing.T) {
	t.Helper()
	const which = "cat /proc/sys/kernel/random/boot_id"
	before, err := g.run(t, which)
	require.NoError(t, err)
	_, err = g.run(t, "systemctl reboot")
	var missing *ssh.ExitMissingError
	if !errors.As(err, &missing) {
		require.NoError(t, err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Second) {
		g.leave()
		if now, err := g.run(t, which); err == nil && now != before {
			return
		}
		require.True(t, time.Now().Before(deadline), "it does not come back")
	}
}
