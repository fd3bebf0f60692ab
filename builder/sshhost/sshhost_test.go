package sshhost_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/builder/hosttest"
	"github.com/opentelekomcloud/go-imagefactory/builder/sshhost"
	"github.com/opentelekomcloud/go-imagefactory/internal/sshconn"
	"github.com/opentelekomcloud/go-imagefactory/internal/sshtest"
)

func connect(t *testing.T, s *sshtest.SSHD, change func(*sshhost.Config)) *sshhost.Host {
	t.Helper()
	c := sshhost.Config{
		Address: s.Address, Auth: []ssh.AuthMethod{ssh.PublicKeys(s.Key)}, HostKey: s.HostKey,
		Dir: filepath.Join(t.TempDir(), "host"), Grace: time.Second, Patience: time.Minute,
	}
	if change != nil {
		change(&c)
	}
	h, err := sshhost.New(c)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, h.Close())
		jobs, _ := filepath.Glob(filepath.Join(c.Dir, "jobs", "*"))
		require.Empty(t, jobs, "a command's files are left")
	})
	return h
}

func TestHost(t *testing.T) {
	s := sshtest.StartSSHD(t)
	require.NoError(t, hosttest.Test(t.Context(), connect(t, s, nil), filepath.Join(t.TempDir(), "host")))
}

// TestConnectionIsCut cuts each connection as soon as the build has written a
// line, three times, the last time with nobody answering for a while. The output
// is complete and in order, and the build ran once.
func TestConnectionIsCut(t *testing.T) {
	s := sshtest.StartSSHD(t)
	h := connect(t, s, nil)
	dir := filepath.Join(t.TempDir(), "build")
	require.NoError(t, builder.Claim(t.Context(), h, dir))
	var out bytes.Buffer
	cuts := 0
	err := h.Run(t.Context(), builder.Command{
		Args:    []string{"sh", "-c", `echo begun >>"$1/begun"; for i in 1 2 3 4 5 6; do echo line $i; sleep 0.5; done`, "sh", dir},
		WorkDir: dir,
		Stdout: writerFunc(func(p []byte) (int, error) {
			out.Write(p)
			if cuts < 3 {
				cuts++
				require.Positive(t, s.Cut())
				if cuts == 3 {
					s.Refuse(true)
					time.AfterFunc(time.Second, func() { s.Refuse(false) })
				}
			}
			return len(p), nil
		}),
	})
	require.NoError(t, err)
	require.Equal(t, 3, cuts)
	require.Equal(t, "line 1\nline 2\nline 3\nline 4\nline 5\nline 6\n", out.String())
	begun, err := os.ReadFile(filepath.Join(dir, "begun"))
	require.NoError(t, err)
	require.Equal(t, "begun\n", string(begun))
	require.NoError(t, builder.Cleanup(t.Context(), h, dir))
}

// Files come whole over connections that are cut meanwhile.
func TestFilesOverCutConnections(t *testing.T) {
	s := sshtest.StartSSHD(t)
	h := connect(t, s, nil)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<19)
	name := filepath.Join(t.TempDir(), "large")
	require.NoError(t, os.WriteFile(name, data, 0o644))
	var got bytes.Buffer
	cuts := 0
	require.NoError(t, h.Download(t.Context(), name, writerFunc(func(p []byte) (int, error) {
		if got.Len() > (cuts+1)*len(data)/4 && cuts < 3 {
			cuts++
			s.Cut()
		}
		return got.Write(p)
	})))
	require.Equal(t, 3, cuts)
	require.True(t, bytes.Equal(data, got.Bytes()))

	var echo bytes.Buffer
	cuts = 0
	in := readerFunc(func(p []byte) (int, error) {
		if cuts == 20 {
			return 0, io.EOF
		}
		if cuts++; cuts%5 == 0 {
			s.Cut()
		}
		return copy(p, fmt.Sprintf("line %d\n", cuts)), nil
	})
	require.NoError(t, h.Run(t.Context(), builder.Command{Args: []string{"cat"}, Stdin: in, Stdout: &echo}))
	require.Equal(t, 20, strings.Count(echo.String(), "\n"))
}

// A peer that has frozen is noticed, and a cancelled command is not waited for
// longer than that takes.
func TestFrozenConnection(t *testing.T) {
	s := sshtest.StartSSHD(t)
	h := connect(t, s, func(c *sshhost.Config) { c.KeepAlive = 500 * time.Millisecond })
	frozen := false
	var out bytes.Buffer
	require.NoError(t, h.Run(t.Context(), builder.Command{
		Args: []string{"sh", "-c", "echo begun; sleep 2; echo ended"},
		Stdout: writerFunc(func(p []byte) (int, error) {
			if !frozen {
				frozen = true
				s.Silence(true)
				time.AfterFunc(2*time.Second, func() { s.Silence(false) })
			}
			return out.Write(p)
		}),
	}))
	require.Equal(t, "begun\nended\n", out.String())
}

// When a host stays away the command fails, and the next build ends it.
func TestHostStaysAway(t *testing.T) {
	s := sshtest.StartSSHD(t)
	var kept sshhost.Config
	h, err := sshhost.New(func() sshhost.Config {
		kept = sshhost.Config{
			Address: s.Address, Auth: []ssh.AuthMethod{ssh.PublicKeys(s.Key)}, HostKey: s.HostKey,
			Dir: filepath.Join(t.TempDir(), "host"), Grace: 100 * time.Millisecond, Patience: time.Second,
		}
		return kept
	}())
	require.NoError(t, err)
	dir := filepath.Join(t.TempDir(), "build")
	require.NoError(t, builder.Claim(t.Context(), h, dir))
	var pid int
	err = h.Run(t.Context(), builder.Command{
		Args: []string{"sh", "-c", "echo begun; exec sleep 1000"}, WorkDir: dir,
		Stdout: writerFunc(func(p []byte) (int, error) {
			record, err := os.ReadFile(dir + ".owner")
			require.NoError(t, err)
			pid, err = strconv.Atoi(strings.Fields(string(record))[1])
			require.NoError(t, err)
			s.Refuse(true)
			s.Cut()
			return len(p), nil
		}),
	})
	require.ErrorContains(t, err, "the host could not be reached for 1s")
	require.NoError(t, h.Close())
	s.Refuse(false)
	require.DirExists(t, "/proc/"+strconv.Itoa(pid), "the build goes on")
	next, err := sshhost.New(kept)
	require.NoError(t, err)
	defer next.Close()
	require.NoError(t, builder.Cleanup(t.Context(), next, dir))
	require.NoDirExists(t, dir)
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	require.True(t, err != nil || strings.Contains(string(stat), ") Z "), "the build still runs")
}

func TestForeignHost(t *testing.T) {
	s := sshtest.StartSSHD(t)
	h := connect(t, s, func(c *sshhost.Config) { c.HostKey = sshtest.Signer(t).PublicKey() })
	var key *sshconn.HostKeyError
	require.ErrorAs(t, h.Run(t.Context(), builder.Command{Args: []string{"true"}}), &key)
	h = connect(t, s, func(c *sshhost.Config) { c.Auth = []ssh.AuthMethod{ssh.PublicKeys(sshtest.Signer(t))} })
	require.ErrorContains(t, h.Run(t.Context(), builder.Command{Args: []string{"true"}}), "unable to authenticate")
	_, err := sshhost.New(sshhost.Config{Address: s.Address})
	require.ErrorContains(t, err, "its host key must be known")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, h.Download(ctx, "/etc/hostname", io.Discard), context.Canceled)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
