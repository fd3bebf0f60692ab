package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
)

// program is the built one: exit codes are its.
type program struct {
	t    *testing.T
	path string
	env  []string

	asNobody bool // run it without privileges
}

func build(t *testing.T) *program {
	t.Helper()
	path := filepath.Join(t.TempDir(), "signing")
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	require.NoError(t, err, string(out))
	return &program{t: t, path: path, env: os.Environ()}
}

// run expects the exit code and returns what was printed.
func (p *program) run(code int, args ...string) (stdout, stderr string) {
	p.t.Helper()
	return p.runWith(nil, code, args...)
}

func (p *program) runWith(fd3 *os.File, code int, args ...string) (stdout, stderr string) {
	p.t.Helper()
	cmd := exec.Command(p.path, args...)
	cmd.Env = p.env
	if fd3 != nil {
		cmd.ExtraFiles = []*os.File{fd3}
	}
	if p.asNobody {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	var out, diag bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diag
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(p.t, err)
	}
	require.Equal(p.t, code, cmd.ProcessState.ExitCode(), "%v\n%s%s", args, out.String(), diag.String())
	return out.String(), diag.String()
}

type verification struct {
	OK    bool `json:"ok"`
	Files []struct {
		Name, Status, Reason, Fingerprint string
		SignedAt                          *string `json:"signed_at"`
	} `json:"files"`
}

func (p *program) json(code int, args ...string) (v verification) {
	p.t.Helper()
	out, _ := p.run(code, args...)
	dec := json.NewDecoder(strings.NewReader(out))
	dec.DisallowUnknownFields()
	require.NoError(p.t, dec.Decode(&v))
	return v
}

func release(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"a.qcow2", "a.config.tar.gz", "release.json"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(name+"\n"), 0o644))
	}
	return dir
}

func TestProgram(t *testing.T) {
	p := build(t)
	key := filepath.Join(t.TempDir(), "key")
	out, _ := p.run(0, "keygen", "-name", "Factory", "-email", "factory@example.com", "-out", key)
	fpr := out[:40]
	_, diag := p.run(2, "keygen", "-name", "Factory", "-email", "factory@example.com", "-out", key)
	require.Contains(t, diag, "never overwritten")
	info, err := os.Stat(key)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	other := filepath.Join(t.TempDir(), "other")
	p.run(0, "keygen", "-json", "-name", "Other", "-email", "other@example.com", "-out", other)

	dir := release(t)
	p.run(0, "sign-dir", "-key", key, dir)
	require.FileExists(t, filepath.Join(dir, "a.qcow2.asc"))
	require.NoFileExists(t, filepath.Join(dir, "release.json.asc"))
	v := p.json(0, "verify-dir", "-json", "-keyring", key+".pub", dir)
	require.True(t, v.OK)
	require.Len(t, v.Files, 6)
	require.Equal(t, fpr, v.Files[0].Fingerprint)
	require.NotNil(t, v.Files[0].SignedAt)
	out, _ = p.run(0, "verify-dir", "-keyring", key+".pub", dir)
	require.Contains(t, out, "a.qcow2: good, signed ")
	p.run(0, "sign-dir", "-key", key, dir)
	p.run(0, "verify-dir", "-keyring", key+".pub", dir)

	v = p.json(1, "verify-dir", "-json", "-keyring", other+".pub", dir)
	require.Equal(t, "untrusted", v.Files[0].Status)
	v = p.json(1, "verify-dir", "-json", "-keyring", key+".pub", "-at", "2020-01-01T00:00:00Z", dir)
	require.Equal(t, "untrusted", v.Files[0].Status)
	image := filepath.Join(dir, "a.qcow2")
	p.run(0, "verify", "-keyring", key+".pub", image, filepath.Join(dir, "a.config.tar.gz"))
	require.NoError(t, os.WriteFile(image, []byte("other"), 0o644))
	v = p.json(1, "verify-dir", "-json", "-keyring", key+".pub", dir)
	require.False(t, v.OK)
	v = p.json(1, "verify", "-json", "-keyring", key+".pub", image)
	require.Equal(t, "bad", v.Files[0].Status)
	require.Equal(t, image, v.Files[0].Name)
	require.NoError(t, os.Remove(filepath.Join(dir, "SHA256SUMS.asc")))
	out, _ = p.run(1, "verify-dir", "-keyring", key+".pub", dir)
	require.Contains(t, out, "SHA256SUMS: missing: no signature")

	text := filepath.Join(dir, "release.json")
	_, _ = p.run(1, "verify", "-keyring", key+".pub", text) // it has no signature
	p.run(0, "sign", "-clear", "-key", key, text)
	content, err := os.ReadFile(text + ".asc")
	require.NoError(t, err)
	require.Contains(t, string(content), "BEGIN PGP SIGNED MESSAGE")
	p.run(0, "verify", "-keyring", key+".pub", text)
	p.run(0, "sign", "-key", key, text)
	p.run(0, "verify", "-keyring", key+".pub", text)
	out, _ = p.run(0, "keys", "-json", "-keyring", key+".pub")
	require.Contains(t, out, fpr)
	out, _ = p.run(0, "keys", "-keyring", key+".pub")
	require.Contains(t, out, "Factory <factory@example.com>")
}

func TestProgramTrouble(t *testing.T) {
	p := build(t)
	key := filepath.Join(t.TempDir(), "key")
	p.run(0, "keygen", "-name", "Factory", "-email", "factory@example.com", "-out", key)
	dir := release(t)
	for _, args := range [][]string{
		{}, {"frob"}, {"keygen"}, {"sign"}, {"sign", "-x"}, {"sign", "-key", key}, {"sign", "-key", key, filepath.Join(dir, "none")},
		{"sign", "-key", key, dir}, {"sign", filepath.Join(dir, "a.qcow2")}, {"sign", "-key", key + ".pub", filepath.Join(dir, "a.qcow2")},
		{"sign", "-key", key, "-agent", strings.Repeat("A", 40), filepath.Join(dir, "a.qcow2")},
		{"sign", "-agent", "C4C85D49", "-keyring", key + ".pub", filepath.Join(dir, "a.qcow2")},
		{"sign", "-agent", strings.Repeat("A", 40), "-keyring", key + ".pub", filepath.Join(dir, "a.qcow2")},
		{"sign-dir", "-key", key}, {"sign-dir", "-key", key, filepath.Join(dir, "none")}, {"sign-dir", "-key", filepath.Join(dir, "none"), dir},
		{"verify", "-keyring", key + ".pub"}, {"verify", filepath.Join(dir, "a.qcow2")},
		{"verify", "-keyring", key + ".pub", filepath.Join(dir, "none")}, {"verify", "-keyring", key + ".pub", dir},
		{"verify", "-keyring", key + ".pub", "-at", "yesterday", filepath.Join(dir, "a.qcow2")},
		{"verify-dir", "-keyring", key + ".pub"}, {"verify-dir", "-keyring", filepath.Join(dir, "none"), dir},
		{"verify-dir", "-keyring", filepath.Join(dir, "release.json"), dir},
		{"verify-dir", "-keyring", key + ".pub", filepath.Join(dir, "none")}, {"keys"},
	} {
		out, diag := p.run(2, args...)
		require.NotEmpty(t, diag, args)
		require.NotContains(t, out, "good", args)
	}
	p.run(0, "-h")
	p.run(0, "verify", "-h")
	v := p.json(1, "verify-dir", "-json", "-keyring", key+".pub", dir)
	require.Equal(t, "missing", v.Files[0].Status, "SHA256SUMS")
}

// TestProgramWithGnuPG uses a key that is locked and one that gpg-agent has.
func TestProgramWithGnuPG(t *testing.T) {
	gpg := needs.Tools(t, "gpg", "gpg-agent", "gpgconf")[0]
	p := build(t)
	home, err := os.MkdirTemp("", "gpg")
	require.NoError(t, err)
	p.env = append(p.env, "GNUPGHOME="+home)
	run := func(name string, args ...string) string {
		cmd := exec.Command(name, args...)
		cmd.Env = p.env
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		return string(out)
	}
	t.Cleanup(func() {
		run("gpgconf", "--kill", "all")
		require.NoError(t, os.RemoveAll(home))
	})
	public, locked := filepath.Join(home, "public"), filepath.Join(home, "locked")
	for _, user := range []string{"agent", "locked"} {
		pass := strings.TrimPrefix(user, "agent")
		run(gpg, "--batch", "--pinentry-mode", "loopback", "--passphrase", pass, "--quick-generate-key", user+"@example.com", "rsa2048", "sign", "never")
	}
	run(gpg, "--batch", "--armor", "--output", public, "--export")
	run(gpg, "--batch", "--pinentry-mode", "loopback", "--passphrase", "locked", "--output", locked, "--export-secret-keys", "locked@example.com")
	var fpr string
	for line := range strings.Lines(run(gpg, "--with-colons", "--list-keys", "agent@example.com")) {
		if fields := strings.Split(line, ":"); fields[0] == "fpr" {
			fpr = fields[9]
		}
	}

	dir := release(t)
	p.run(0, "sign-dir", "-agent", fpr, "-keyring", public, dir)
	p.run(0, "verify-dir", "-keyring", public, dir)
	run(gpg, "--verify", filepath.Join(dir, "a.qcow2.asc"), filepath.Join(dir, "a.qcow2"))

	for passphrase, code := range map[string]int{"locked\n": 0, "wrong\n": 2} {
		secret := filepath.Join(t.TempDir(), "passphrase")
		require.NoError(t, os.WriteFile(secret, []byte(passphrase), 0o600))
		f, err := os.Open(secret)
		require.NoError(t, err)
		_, diag := p.runWith(f, code, "sign-dir", "-key", locked, "-passphrase-fd", "3", dir)
		require.NotContains(t, diag, "wrong\n")
		require.NoError(t, f.Close())
	}
	p.run(0, "verify-dir", "-keyring", public, dir)
	ring := filepath.Join(home, "keyring.yaml")
	require.NoError(t, os.WriteFile(ring, []byte("keys:\n- fingerprint: "+fpr+"\n  file: public\n"), 0o644))
	v := p.json(1, "verify-dir", "-json", "-keyring", ring, dir)
	require.Equal(t, "untrusted", v.Files[0].Status)
}

// TestSecondSignal: what waits for somebody to write into a pipe can be ended.
func TestSecondSignal(t *testing.T) {
	p := build(t)
	pipe := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	cmd := exec.Command(p.path, "keys", "-keyring", pipe)
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	patience := time.After(20 * time.Second)
	for {
		select {
		case err := <-ended:
			require.Error(t, err)
			return
		case <-patience:
			require.NoError(t, cmd.Process.Kill())
			t.Fatal("it does not end")
		case <-time.After(50 * time.Millisecond):
			_ = cmd.Process.Signal(syscall.SIGTERM) // which may have ended it
		}
	}
}
