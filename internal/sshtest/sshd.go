package sshtest

import (
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
)

// SSHD is a real OpenSSH server on loopback, behind a proxy whose connections
// can be cut. Root logs in with Key, and its commands run on this machine.
type SSHD struct {
	Address string // of the proxy
	HostKey ssh.PublicKey
	Key     ssh.Signer

	mu     sync.Mutex
	conns  []net.Conn
	refuse bool
	silent bool
}

// StartSSHD starts the server of Debian's package, which is not installed but
// downloaded. It needs root.
func StartSSHD(t testing.TB) *SSHD {
	t.Helper()
	tools := needs.Tools(t, "apt-get", "dpkg", "unshare", "ssh-keygen")
	needs.Root(t)
	dir := t.TempDir()
	command := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			needs.Missing(t, "cannot prepare sshd: "+string(out))
		}
	}
	command(tools[0], "download", "-q", "openssh-server", "libwrap0")
	debs, _ := filepath.Glob(filepath.Join(dir, "*.deb"))
	for _, deb := range debs {
		command(tools[1], "-x", deb, dir)
	}
	command(tools[3], "-q", "-N", "", "-t", "ed25519", "-f", "host")
	command(tools[3], "-q", "-N", "", "-t", "ed25519", "-f", "user")
	s := &SSHD{}
	host, err := os.ReadFile(filepath.Join(dir, "host.pub"))
	if err == nil {
		s.HostKey, _, _, _, err = ssh.ParseAuthorizedKey(host)
	}
	must(t, err)
	user, err := os.ReadFile(filepath.Join(dir, "user"))
	if err == nil {
		s.Key, err = ssh.ParsePrivateKey(user)
	}
	must(t, err)
	s.proxy(t, serveSSHD(t, tools[2], dir))
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serveSSHD starts the server with a passwd file of its own.
func serveSSHD(t testing.TB, unshare, dir string) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	address = l.Addr().String()
	port := l.Addr().(*net.TCPAddr).Port
	must(t, l.Close())
	must(t, os.WriteFile(filepath.Join(dir, "passwd"), []byte("root:x:0:0:root:/root:/bin/sh\nsshd:x:101:65534::/run/sshd:/usr/sbin/nologin\n"), 0o644))
	config := "HostKey " + dir + "/host\nAuthorizedKeysFile " + dir + "/user.pub\nPermitRootLogin prohibit-password\nStrictModes no\n" +
		"PidFile none\nUsePAM no\nSubsystem sftp internal-sftp\nMaxStartups 100\nMaxSessions 100\n"
	must(t, os.WriteFile(filepath.Join(dir, "sshd_config"), []byte(config), 0o644))
	libs, _ := filepath.Glob(filepath.Join(dir, "usr/lib/*/libwrap.so.0"))
	if len(libs) != 1 {
		t.Fatal("libwrap is missing")
	}
	const setup = `mount --bind "$1/passwd" /etc/passwd && mount -t tmpfs tmpfs /run && mkdir -p /run/sshd && exec "$1/usr/sbin/sshd" -D -e -f "$1/sshd_config" -o ListenAddress=127.0.0.1:$2`
	cmd := exec.Command(unshare, "--mount", "sh", "-c", setup, "sh", dir, strconv.Itoa(port))
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+filepath.Dir(libs[0]))
	log, err := cmd.StderrPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	buf := make([]byte, 4096)
	var said []byte
	for !bytes.Contains(said, []byte("Server listening on")) {
		n, err := log.Read(buf)
		said = append(said, buf[:n]...)
		if err != nil {
			t.Fatalf("sshd: %v: %s", err, said)
		}
	}
	go func() { _, _ = io.Copy(io.Discard, log) }()
	return address
}

func (s *SSHD) proxy(t testing.TB, to string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	s.Address = l.Addr().String()
	t.Cleanup(func() {
		_ = l.Close()
		s.Cut()
	})
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go s.pass(conn, to)
		}
	}()
}

func (s *SSHD) pass(conn net.Conn, to string) {
	defer conn.Close()
	s.mu.Lock()
	refuse := s.refuse
	s.mu.Unlock()
	if refuse {
		return
	}
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	s.mu.Lock()
	s.conns = append(s.conns, conn, server)
	s.mu.Unlock()
	go func() {
		_, _ = io.Copy(server, conn)
		_ = server.Close()
	}()
	buf := make([]byte, 32<<10)
	for {
		n, err := server.Read(buf)
		s.mu.Lock()
		silent := s.silent
		s.mu.Unlock()
		if n > 0 && !silent {
			if _, err := conn.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// Cut closes all connections and returns how many there were.
func (s *SSHD) Cut() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.conns) / 2
	for _, c := range s.conns {
		_ = c.Close()
	}
	s.conns = nil
	return n
}

// Refuse closes new connections at once as long as it is set.
func (s *SSHD) Refuse(refuse bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = refuse
}

// Silence lets no answer of the server through as long as it is set.
func (s *SSHD) Silence(silent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = silent
}
