package testsuite

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/internal/sshtest"
)

// realSSHD is the distribution's sshd, unpacked and not installed, for a developer's
// machine should not get a server by its tests.
type realSSHD struct {
	dir  string
	sshd string
	env  []string
}

func newRealSSHD(t *testing.T) *realSSHD {
	tools := needs.Tools(t, "apt-get", "dpkg", "unshare", "ssh-keygen")
	needs.Root(t)
	s := &realSSHD{dir: t.TempDir()}
	require.NoError(t, os.Chmod(s.dir, 0o755))
	download := exec.CommandContext(t.Context(), tools[0], "download", "-q", "openssh-server", "libwrap0")
	download.Dir = s.dir
	if out, err := download.CombinedOutput(); err != nil {
		needs.Missing(t, "cannot download openssh-server: "+string(out))
	}
	debs, err := filepath.Glob(filepath.Join(s.dir, "*.deb"))
	require.NoError(t, err)
	for _, deb := range debs {
		out, err := exec.CommandContext(t.Context(), tools[1], "-x", deb, s.dir).CombinedOutput()
		require.NoError(t, err, string(out))
	}
	libs, err := filepath.Glob(filepath.Join(s.dir, "usr/lib/*/libwrap.so.0"))
	require.NoError(t, err)
	require.Len(t, libs, 1)
	s.sshd = filepath.Join(s.dir, "usr/sbin/sshd")
	s.env = append(os.Environ(), "LD_LIBRARY_PATH="+filepath.Dir(libs[0]))
	s.write(t, "passwd", "root:x:0:0:root:/root:/bin/bash\nlinux:x:1000:1000::/home/linux:/bin/bash\nbackup:x:34:34::/var:/usr/sbin/nologin\nsshd:x:101:65534::/run/sshd:/usr/sbin/nologin\nbob:x:1001:1001::/home/bob:/bin/sh\n")
	s.write(t, "group", "root:x:0:\nwheel:x:10:bob,linux\nlinux:x:1000:\nnogroup:x:65534:\n")
	for name, kind := range map[string][]string{
		"ed25519": {"ed25519"}, "rsa": {"rsa"}, "ecdsa": {"ecdsa"}, "ecdsa384": {"ecdsa", "-b", "384"}, "ecdsa521": {"ecdsa", "-b", "521"}, "dsa": {"dsa"},
	} {
		args := append([]string{"-q", "-N", "", "-f", filepath.Join(s.dir, "ssh_host_"+name+"_key"), "-t"}, kind...)
		out, err := exec.CommandContext(t.Context(), tools[3], args...).CombinedOutput()
		require.NoError(t, err, string(out))
	}
	return s
}

func (s *realSSHD) write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(s.dir, name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}

// otcConfig is the sshd_config of a hardened image, by line.
const otcConfig = `UsePAM yes
PermitRootLogin no
PasswordAuthentication no
KbdInteractiveAuthentication no
X11Forwarding no
HostKey /etc/ssh/ssh_host_ed25519_key
HostKey /etc/ssh/ssh_host_rsa_key
KexAlgorithms sntrup761x25519-sha512@openssh.com,curve25519-sha256
Ciphers chacha20-poly1305@openssh.com,aes256-gcm@openssh.com
MACs hmac-sha2-512-etm@openssh.com
HostKeyAlgorithms ssh-ed25519,rsa-sha2-512,rsa-sha2-256
PubkeyAcceptedAlgorithms ssh-ed25519,rsa-sha2-512,rsa-sha2-256
Subsystem sftp /usr/lib/openssh/sftp-server
`

// gather starts the sshd with the arguments after -D in a namespace where /etc/ssh
// holds the configuration, and runs gatherScript there for what it says of sshd. With an
// impostor a user's process runs too that has it for its title.
func (s *realSSHD) gather(t *testing.T, config string, impostor string, arguments ...string) Facts {
	t.Helper()
	g := &gatherer{target: Target{User: "linux"}, facts: Facts{Facts: map[string]Fact{}}, wanted: map[string]bool{
		"sshd-processes": true, "sshd-config": true, "sshd-match": true, "sshd-views": true,
	}}
	script := strings.Replace(g.prelude(sshtest.Signer(t), g.scriptFacts()...)+gatherScript+endScript, " PATH=", " PATH="+filepath.Dir(s.sshd)+":", 1)
	s.write(t, "sshd_config", config)
	s.write(t, "gather.sh", script)
	setup := `set -e
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/group" /etc/group
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd /run/lock
mount -t tmpfs tmpfs /etc/ssh
cp "$1"/ssh_host_* "$1/sshd_config" /etc/ssh
printf 'Match Address 203.0.113.9\n PermitRootLogin yes\n' >/etc/ssh/included
chmod 600 /etc/ssh/ssh_host_*_key
ip link set lo up 2>/dev/null || :
d=$1; sshd=$2; shift 2
cp "$(command -v sleep)" /run/sshd-of-a-user
[ -z "$IMPOSTOR" ] || setpriv --reuid=1001 --regid=1001 --clear-groups bash -c 'exec -a "$IMPOSTOR" /run/sshd-of-a-user 600' &
"$sshd" -D "$@" >/run/sshd.log 2>&1 &
i=0
while [ ! -s /run/sshd.pid ]; do
	i=$((i + 1)); [ $i -lt 600 ] || { cat /run/sshd.log >&2; exit 1; }
	kill -0 $! 2>/dev/null || { cat /run/sshd.log >&2; exit 1; }
	sleep 0.05
done
sh "$d/gather.sh"
status=$?
[ ! -s /run/sshd.evil ] || grep -q listening /run/sshd.evil || { echo "a user's process had root write a file" >&2; exit 1; }
exit $status`
	cmd := exec.CommandContext(t.Context(), "unshare", append([]string{"--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc",
		"sh", "-c", setup, "sh", s.dir, s.sshd}, arguments...)...)
	cmd.Env = append(s.env, "IMPOSTOR="+impostor)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	// What sshd is called here is not where it is on a machine.
	out = bytes.ReplaceAll(out, []byte(s.sshd), []byte(fmt.Sprintf("%-*s", len(s.sshd), "/usr/sbin/sshd")))
	require.NoError(t, parseFacts(bytes.NewReader(out), g.facts.Facts), string(out))
	return g.facts
}

// Each configuration makes exactly the named checks fail that judge what sshd says
// of itself.
func TestRealSSHDConfigurations(t *testing.T) {
	s := newRealSSHD(t)
	other := s.write(t, "other.conf", "PasswordAuthentication yes\n"+otcConfig)
	for _, tc := range []struct {
		name      string
		config    string // before the good one, whose values then do not count
		arguments []string
		impostor  string
		checks    []string
	}{
		{name: "good"},
		// Its arguments must not be given to a command of root's.
		{name: "a user's process that calls itself sshd", impostor: "/usr/sbin/sshd -D -o PermitRootLogin=yes -E /run/sshd.evil [listener]", checks: []string{"sshd.running"}},
		{name: "a log file", arguments: []string{"-E", "/run/sshd.evil"}, checks: []string{"sshd.running"}},
		{name: "passwords", config: "PasswordAuthentication yes\n", checks: []string{"sshd.password-authentication"}},
		{name: "root by key", config: "PermitRootLogin prohibit-password\n", checks: []string{"sshd.permit-root-login"}},
		{name: "an included file", config: "Include /etc/ssh/included\n", checks: []string{"sshd.match", "sshd.permit-root-login"}},
		{name: "arguments", arguments: []string{"-o", "PermitRootLogin=yes"}, checks: []string{"sshd.permit-root-login", "sshd.running"}},
		{name: "another file", arguments: []string{"-f", other}, checks: []string{"sshd.password-authentication", "sshd.running"}},
		{name: "another port", arguments: []string{"-p", "2222"}, checks: []string{"sshd.options", "sshd.running"}},
		{name: "two ports", config: "Port 22\nPort 2222\n", checks: []string{"sshd.options"}},
		{name: "keys from a command", config: "AuthorizedKeysCommand /usr/bin/true\nAuthorizedKeysCommandUser nobody\n", checks: []string{"sshd.key-sources"}},
		{name: "an authority", config: "TrustedUserCAKeys /etc/ssh/ssh_host_rsa_key.pub\n", checks: []string{"sshd.key-sources"}},
		{name: "keys elsewhere", config: "AuthorizedKeysFile .ssh/authorized_keys /var/tmp/%u\n", checks: []string{"sshd.key-sources"}},
		{name: "environment", config: "AcceptEnv LD_*\n", checks: []string{"sshd.options"}},
		{name: "set environment", config: "SetEnv LD_PRELOAD=/tmp/x.so\n", checks: []string{"sshd.options"}},
		{name: "user environment", config: "PermitUserEnvironment yes\n", checks: []string{"sshd.options"}},
		{name: "a subsystem", config: "Subsystem shell /bin/sh\n", checks: []string{"sshd.options"}},
		{name: "a forced command", config: "ForceCommand /bin/sh -c id\n", checks: []string{"sshd.options"}},
		{name: "no strict modes", config: "StrictModes no\n", checks: []string{"sshd.options"}},
		{name: "quiet", config: "LogLevel QUIET\n", checks: []string{"sshd.options"}},
		{name: "tunnels", config: "PermitTunnel yes\n", checks: []string{"sshd.options"}},
		{name: "gateway ports", config: "GatewayPorts clientspecified\n", checks: []string{"sshd.options"}},
		{name: "no PAM", config: "UsePAM no\n", checks: []string{"sshd.options"}},
		{name: "another moduli file", config: "ModuliFile /tmp/moduli\n", checks: []string{"sshd.options"}},
		{name: "weak CA signatures", config: "CASignatureAlgorithms +ssh-rsa\n", checks: []string{"sshd.options"}},
		{name: "rhosts", config: "IgnoreRhosts no\n", checks: []string{"sshd.options"}},
		{name: "weak kex", config: "KexAlgorithms diffie-hellman-group14-sha1\n", checks: []string{"sshd.kex"}},
		{name: "weak cipher", config: "Ciphers aes128-cbc\n", checks: []string{"sshd.ciphers"}},
		{name: "weak MAC", config: "MACs hmac-md5\n", checks: []string{"sshd.macs"}},
		{name: "weak user keys", config: "PubkeyAcceptedAlgorithms +ssh-rsa\n", checks: []string{"sshd.user-key-algorithms"}},
		{name: "weak host keys", config: "HostKeyAlgorithms +ssh-rsa\n", checks: []string{"sshd.host-key-algorithms"}},
		{name: "Match that changes nothing", config: "Match User nobody\n\tPermitTTY yes\nMatch all\n", checks: []string{"sshd.match"}},
		{name: "Match a port", config: "mAtCh  LocalPort 2222\n\tPermitRootLogin yes\nMatch all\n", checks: []string{"sshd.match", "sshd.permit-root-login"}},
		{name: "Match an address", config: "Match Address 198.51.100.0/24,203.0.113.7\n\tPasswordAuthentication yes\nMatch all\n", checks: []string{"sshd.match", "sshd.password-authentication"}},
		{name: "Match IPv6", config: "Match Address ::1\n\tPasswordAuthentication yes\nMatch all\n", checks: []string{"sshd.match", "sshd.password-authentication"}},
		{name: "Match a local address", config: "Match LocalAddress 192.0.2.77\n\tPermitRootLogin yes\nMatch all\n", checks: []string{"sshd.match", "sshd.permit-root-login"}},
		{name: "Match a user with =", config: "Match User=backup\n\tAuthorizedKeysFile /tmp/k\nMatch all\n", checks: []string{"sshd.key-sources", "sshd.match"}},
		{name: "Match by pattern", config: "Match User b*b\n\tAuthorizedKeysFile /tmp/k\nMatch all\n", checks: []string{"sshd.key-sources", "sshd.match"}},
		{name: "Match all but one", config: "Match User *,!linux\n\tAuthorizedKeysFile /tmp/k\nMatch all\n", checks: []string{"sshd.key-sources", "sshd.match"}},
		{name: "Match a group", config: "Match Group wheel\n\tPermitEmptyPasswords yes\nMatch all\n", checks: []string{"sshd.match", "sshd.permit-empty-passwords"}},
		{name: "Match several things", config: "Match User root Address 198.51.100.9 LocalPort 2200\n\tPermitRootLogin yes\nMatch all\n", checks: []string{"sshd.match", "sshd.permit-root-login"}},
		{name: "Match a host", config: "Match Host *.evil.example\n\tForceCommand /bin/sh\nMatch all\n", checks: []string{"sshd.match", "sshd.options"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := s.gather(t, tc.config+otcConfig, tc.impostor, tc.arguments...)
			var bad, found []string
			for _, c := range sshdChecks() {
				if slices.ContainsFunc(c.Needs, func(need string) bool { return !strings.HasPrefix(need, "sshd-") }) {
					continue
				}
				if r := judge(c, f, Params{}); r.Status != Pass {
					assert.Equal(t, Fail, r.Status, "%+v", r)
					bad, found = append(bad, r.ID), append(found, r.Found)
				}
			}
			assert.ElementsMatch(t, tc.checks, bad, "%q", found)
		})
	}
}

// algorithmLists are sshd's options, what ssh -Q and ssh-audit call their lists, the
// names on the wire, and which algorithms are good.
var algorithmLists = []struct {
	option, query, section, wire string
	good                         []string
}{
	{"KexAlgorithms", "kex", "kex", "kex", goodKex},
	{"Ciphers", "cipher", "enc", "cipher", goodCiphers},
	{"MACs", "mac", "mac", "mac", goodMACs},
	{"HostKeyAlgorithms", "HostKeyAlgorithms", "key", "hostkey", goodKeys},
}

// Configurations of the distribution's sshd, as our probes of the wire, ssh-audit and
// sshd -T see them: each algorithm that it can offer alone in its list, and lists that are
// put together by chance. What ssh-audit calls a failure, we fail.
func TestWireAgainstSSHAudit(t *testing.T) {
	audit := needs.Tools(t, "ssh-audit")[0]
	s := newRealSSHD(t)
	// What ssh-audit 2.5 calls a failure and we do not, and why.
	reasons := map[string]string{
		"ecdh-sha2-nistp384":  "the image factory added it for clients that know nothing newer; no weakness of the curve is known",
		"ecdsa-sha2-nistp256": "no weakness of the curve is known, only of who chose it",
		"ecdsa-sha2-nistp384": "no weakness of the curve is known, only of who chose it",
		"ecdsa-sha2-nistp521": "no weakness of the curve is known, only of who chose it",
	}
	known := map[string][]string{}
	var configurations []map[string][]string // by option
	for _, list := range algorithmLists {
		out, err := exec.CommandContext(t.Context(), "ssh", "-Q", list.query).Output()
		require.NoError(t, err)
		known[list.option] = slices.DeleteFunc(strings.Fields(string(out)), func(name string) bool {
			return list.option == "HostKeyAlgorithms" && (strings.Contains(name, "cert") || strings.Contains(name, "sk-")) // there is no such key here
		})
		for _, name := range known[list.option] {
			configurations = append(configurations, map[string][]string{list.option: {name}})
		}
	}
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same lists in each run
	for range 20 {
		c := map[string][]string{}
		for option, all := range known {
			c[option] = slices.Clone(all)
			random.Shuffle(len(all), func(i, j int) { c[option][i], c[option][j] = c[option][j], c[option][i] })
			c[option] = c[option][:1+random.IntN(4)]
		}
		configurations = append(configurations, c)
	}
	require.GreaterOrEqual(t, len(configurations), 60)
	used := map[string]bool{}
	for i, c := range configurations {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			config := ""
			for option, names := range c {
				config += option + " " + strings.Join(names, ",") + "\n"
			}
			if c["Ciphers"] == nil {
				config += "Ciphers aes256-ctr\n" // which needs a MAC
			}
			address := s.serve(t, config+otcConfig+"HostKey /etc/ssh/ssh_host_ecdsa_key\n"+
				"HostKey /etc/ssh/ssh_host_ecdsa384_key\nHostKey /etc/ssh/ssh_host_ecdsa521_key\nHostKey /etc/ssh/ssh_host_dsa_key\n")
			offer, err := probeAlgorithms(t.Context(), address)
			require.NoError(t, err)
			f := Facts{Facts: map[string]Fact{"wire-algorithms": {Output: offer}}}
			fails := auditFails(t, audit, address)
			weak, err := weakAgreed(t.Context(), new(net.Dialer).DialContext, address)
			require.NoError(t, err)
			f.Facts["wire-weak"] = Fact{Output: weak}
			assert.Equal(t, Pass, judgeWeakRefused(f, Params{}).Status, "it agrees to what it does not offer: %s", weak)
			for _, list := range algorithmLists {
				var bad []string
				for _, name := range c[list.option] {
					ours := !slices.Contains(list.good, name)
					if ours {
						bad = append(bad, name)
					}
					theirs, seen := fails[list.section+" "+name]
					require.True(t, seen, "ssh-audit says nothing of %s", name)
					if theirs && !ours {
						assert.NotEmpty(t, reasons[name], "ssh-audit fails %s, we do not", name)
						used[name] = true
					}
				}
				id := map[string]string{"kex": "sshd.offered-kex", "cipher": "sshd.offered-ciphers", "mac": "sshd.offered-macs", "hostkey": "sshd.offered-host-keys"}[list.wire]
				for _, check := range sshdChecks() {
					if r := judge(check, f, Params{}); check.ID == id && c[list.option] != nil {
						assert.Equal(t, len(bad) > 0, r.Status == Fail, "%+v", r)
						for _, name := range bad {
							assert.Contains(t, r.Found, name)
						}
					}
				}
				// What is weak, is offered and is on our list is agreed to when it is offered alone.
				for _, row := range weakAlgorithms {
					if row.kind != list.wire || list.wire == "mac" && withoutAEAD(f.value("wire-algorithms", "cipher-to-server")) == "" {
						continue
					}
					agreed := strings.Split(fieldAfter(weak, row.kind+" accepted"), ",")
					for _, name := range bad {
						if slices.Contains(row.names, name) {
							assert.Contains(t, agreed, name, weak)
						}
					}
				}
			}
		})
	}
	for name := range reasons {
		assert.True(t, used[name], "the reason for %s is out of date: ssh-audit does not fail it, or we do", name)
	}
	t.Logf("%d configurations, %d algorithms that ssh-audit fails and we do not: each has its reason", len(configurations), len(used))
}

func fieldAfter(text, start string) string {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, start+" "); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// auditFails says of each "SECTION NAME" whether ssh-audit calls the algorithm of a
// server a failure.
func auditFails(t *testing.T, audit, address string) map[string]bool {
	host, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	out, _ := exec.CommandContext(t.Context(), audit, "-n", "-b", "-p", port, host).Output() // its status is its verdict
	// "(kex) NAME  -- [fail] why", and below it "`- [warn] more".
	current, fails := "", map[string]bool{}
	for line := range strings.Lines(string(out)) {
		if fields := strings.Fields(line); strings.HasPrefix(line, "(") && len(fields) > 1 {
			current = strings.Trim(fields[0], "()") + " " + fields[1]
		}
		fails[current] = fails[current] || strings.Contains(line, "[fail]")
	}
	return fails
}

// serve starts the sshd on a port of loopback until the test ends.
func (s *realSSHD) serve(t *testing.T, config string) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := l.Addr().(*net.TCPAddr).Port
	require.NoError(t, l.Close())
	config = strings.ReplaceAll(config, "/etc/ssh/", s.dir+"/")
	file := s.write(t, "serve.conf", config)
	setup := `set -e
mount --bind "$1/passwd" /etc/passwd
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd
exec "$2" -D -e -f "$3" -o ListenAddress=127.0.0.1:$4`
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--fork", "--pid", "--kill-child", "sh", "-c", setup, "sh", s.dir, s.sshd, file, strconv.Itoa(port))
	cmd.Env = s.env
	log, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	buf := make([]byte, 4096)
	var said []byte
	for !bytes.Contains(said, []byte("Server listening on")) {
		n, err := log.Read(buf)
		said = append(said, buf[:n]...)
		require.NoError(t, err, string(said))
	}
	go func() {
		for {
			if _, err := log.Read(buf); err != nil {
				return
			}
		}
	}()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}
