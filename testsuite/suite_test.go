package testsuite

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden files anew")

// goodFacts are those of a Debian 12 that was booted in the sandbox.
func goodFacts(t testing.TB) Facts {
	t.Helper()
	r, err := os.Open("testdata/debian12.json")
	require.NoError(t, err)
	defer func() { _ = r.Close() }()
	f, err := LoadFacts(r)
	require.NoError(t, err)
	return f
}

func goodParams() Params {
	return Params{
		Hostname:         "otc-sandbox",
		NTPServers:       []string{"ntp01.otc-service.com", "ntp02.otc-service.com"},
		DiskBytes:        4 << 30,
		OverlayBytes:     8 << 30,
		RequiredPackages: []string{"openssh-server", "sudo", "chrony"},
		UVPMonitor:       UVPMonitor{State: UVPOptional, Reason: "not in Debian's archive"},
		Repositories: []Repository{
			{URL: "http://debmirror.otc-service.com/debian/", Suites: []string{"bookworm", "bookworm-updates"}},
			{URL: "http://debmirror.otc-service.com/debian-security", Suites: []string{"bookworm-security"}},
		},
		MirrorHosts: []string{"mirror.example:3142"},
	}
}

func results(t testing.TB, s *Suite, f Facts) map[string]Result {
	t.Helper()
	r, err := s.Judge(f)
	require.NoError(t, err)
	out := map[string]Result{}
	for _, c := range r.Checks {
		out[c.ID] = c
	}
	return out
}

func TestProfileOTC(t *testing.T) {
	checks := OTC().Checks
	assert.GreaterOrEqual(t, len(checks), 30)
	for _, c := range checks {
		assert.Equal(t, c.Group, strings.Split(c.ID, ".")[0])
		assert.NotEmpty(t, c.Title, c.ID)
		assert.NotEmpty(t, c.Why, c.ID)
		assert.NotEmpty(t, c.References, c.ID)
		assert.Contains(t, []Severity{Low, Medium, High, Critical}, c.Severity, c.ID)
	}
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		require.NoError(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, string(want), string(got), path)
}

func TestGoodMachine(t *testing.T) {
	s := &Suite{Profile: OTC(), Params: goodParams()}
	for id, r := range results(t, s, goodFacts(t)) {
		want := Pass
		if id == "uvp.monitor" {
			want = Skipped
		}
		assert.Equal(t, want, r.Status, "%s: %+v", id, r)
	}
}

// spoils turn the good machine's facts into those of a bad one, one thing at a
// time. Each is seen by exactly the check that it names first, and those after.
var spoils = []struct {
	checks   []string
	fact     string
	old, new string
	status   Status // if empty, Fail
}{
	{checks: []string{"sshd.password-authentication"}, fact: "sshd-config", old: "passwordauthentication no", new: "passwordauthentication yes"},
	{checks: []string{"sshd.password-authentication"}, fact: "sshd-views", old: "none needed", new: "### user=root,addr=::1\npasswordauthentication yes"},
	{checks: []string{"sshd.kex"}, fact: "sshd-views", old: "none needed", new: "### user=root,addr=::1\nkexalgorithms diffie-hellman-group1-sha1"},
	{checks: []string{"sshd.options"}, fact: "sshd-views", old: "none needed", new: "### user=linux,addr=::1\nacceptenv *"},
	{checks: []string{"sshd.match"}, fact: "sshd-match", old: "", new: "LocalPort 2222\n"},
	{checks: []string{"sshd.running"}, fact: "sshd-processes", old: "/usr/sbin/sshd -D", new: "/usr/sbin/sshd -D -o PermitRootLogin=yes"},
	{checks: []string{"sshd.running"}, fact: "sshd-processes", old: "/usr/sbin/sshd -D", new: "/usr/sbin/sshd -D -f /etc/ssh/other"},
	{checks: []string{"sshd.running"}, fact: "sshd-processes", old: "395 1 /usr/sbin/sshd|", new: "395 1 /usr/sbin/sshd (deleted)|"},
	{checks: []string{"sshd.running"}, fact: "sshd-processes", old: "505 395 /usr/sbin/sshd|", new: "505 395 /opt/sshd|"},
	{checks: []string{"sshd.key-sources"}, fact: "sshd-config", old: "authorizedkeyscommand none", new: "authorizedkeyscommand /usr/bin/keys"},
	{checks: []string{"sshd.key-sources"}, fact: "sshd-config", old: "trustedusercakeys none", new: "trustedusercakeys /etc/ssh/ca.pub"},
	{checks: []string{"sshd.key-sources"}, fact: "sshd-config", old: ".ssh/authorized_keys2", new: "/etc/keys/%u"},
	{checks: []string{"sshd.key-sources"}, fact: "sshd-views", old: "none needed", new: "### user=x\nauthorizedprincipalsfile /etc/p"},
	{checks: []string{"sshd.options"}, fact: "sshd-config", old: "permituserenvironment no", new: "permituserenvironment yes"},
	{checks: []string{"sshd.options"}, fact: "sshd-config", old: "acceptenv LANG", new: "acceptenv LD_PRELOAD"},
	{checks: []string{"sshd.options"}, fact: "sshd-config", old: "modulifile /etc/ssh/moduli", new: "modulifile /etc/ssh/weak"},
	{checks: []string{"sshd.options"}, fact: "sshd-config", old: "subsystem sftp /usr/lib/openssh/sftp-server", new: "subsystem sftp /bin/sh"},
	{checks: []string{"sshd.options"}, fact: "sshd-config", old: "printmotd no", new: "setenv PATH=/tmp\nprintmotd no"},
	{checks: []string{"sshd.options"}, fact: "sshd-config", old: "printmotd no", new: "futureoption yes\nprintmotd no"},
	{checks: []string{"sshd.options"}, fact: "sshd-config", old: "loglevel VERBOSE", new: "loglevel QUIET"},
	{checks: []string{"sshd.options"}, fact: "sshd-config", old: "strictmodes yes", new: "strictmodes no"},
	{checks: []string{"sshd.options"}, fact: "sshd-config", old: "forcecommand none", new: "forcecommand /usr/bin/tee /tmp/log"},
	{checks: []string{"sshd.keyboard-interactive"}, fact: "sshd-config", old: "kbdinteractiveauthentication no", new: "kbdinteractiveauthentication yes"},
	{checks: []string{"sshd.permit-empty-passwords"}, fact: "sshd-config", old: "permitemptypasswords no", new: "permitemptypasswords yes"},
	{checks: []string{"sshd.permit-root-login"}, fact: "sshd-config", old: "permitrootlogin no", new: "permitrootlogin without-password"},
	{checks: []string{"sshd.permit-root-login"}, fact: "sshd-views", old: "none needed", new: "### user=root,lport=2222\npermitrootlogin yes"},
	{checks: []string{"sshd.pubkey-authentication"}, fact: "sshd-config", old: "pubkeyauthentication yes", new: "pubkeyauthentication no"},
	{checks: []string{"sshd.hostbased-authentication"}, fact: "sshd-config", old: "hostbasedauthentication no", new: "hostbasedauthentication yes"},
	{checks: []string{"sshd.kex"}, fact: "sshd-config", old: "\nkexalgorithms ", new: "\nkexalgorithms diffie-hellman-group14-sha1,"},
	{checks: []string{"sshd.ciphers"}, fact: "sshd-config", old: "\nciphers ", new: "\nciphers aes128-cbc,"},
	{checks: []string{"sshd.macs"}, fact: "sshd-config", old: "\nmacs ", new: "\nmacs umac-64@openssh.com,"},
	{checks: []string{"sshd.macs"}, fact: "sshd-config", old: "\nmacs ", new: "\nlogverbose ", status: Error},
	{checks: []string{"sshd.host-key-algorithms"}, fact: "sshd-config", old: "\nhostkeyalgorithms ", new: "\nhostkeyalgorithms ssh-rsa,"},
	{checks: []string{"sshd.user-key-algorithms"}, fact: "sshd-config", old: "\npubkeyacceptedalgorithms ", new: "\npubkeyacceptedalgorithms ssh-dss,"},
	{checks: []string{"sshd.password-login"}, fact: "wire-password", old: "offered publickey", new: "offered publickey,password"},
	{checks: []string{"sshd.password-login"}, fact: "wire-password", old: "offered publickey", new: "offered publickey,keyboard-interactive"},
	{checks: []string{"sshd.password-login"}, fact: "wire-password", old: "login refused", new: "login accepted"},
	{checks: []string{"sshd.password-login"}, fact: "wire-password", old: "login refused", new: "login undecided", status: Error},
	{checks: []string{"sshd.password-login"}, fact: "wire-password", old: "offered publickey", new: "offered ", status: Error},
	{checks: []string{"sshd.root-login"}, fact: "wire-root", old: "login refused", new: "login accepted"},
	{checks: []string{"sshd.root-login"}, fact: "wire-root", old: "tried none,publickey", new: "tried none", status: Error},
	{checks: []string{"sshd.root-login"}, fact: "root-key", old: ".ssh/authorized_keys ", new: "/etc/ssh/keys/%u ", status: Error},
	{checks: []string{"sshd.offered-kex"}, fact: "wire-algorithms", old: "\nkex ", new: "\nkex ecdh-sha2-nistp256,"},
	{checks: []string{"sshd.offered-ciphers"}, fact: "wire-algorithms", old: "\ncipher-to-client ", new: "\ncipher-to-client 3des-cbc,"},
	{checks: []string{"sshd.offered-macs"}, fact: "wire-algorithms", old: "\nmac-to-server ", new: "\nmac-to-server hmac-sha1,"},
	{checks: []string{"sshd.offered-host-keys"}, fact: "wire-algorithms", old: "\nhostkey ", new: "\nhostkey ssh-rsa,"},

	{checks: []string{"sysctl.accept-redirects"}, fact: "sysctl", old: "ipv4/conf/all/accept_redirects 0", new: "ipv4/conf/all/accept_redirects 1"},
	{checks: []string{"sysctl.accept-redirects"}, fact: "sysctl", old: "ipv4/conf/enp0s4/accept_redirects 0", new: "ipv4/conf/enp0s4/accept_redirects 1"},
	{checks: []string{"sysctl.accept-redirects"}, fact: "sysctl", old: "ipv4/conf/all/accept_redirects 0", new: "ipv4/conf/all/accept_redirects no", status: Error},
	{checks: []string{"sysctl.accept-redirects-ipv6"}, fact: "sysctl", old: "ipv6/conf/enp0s4/accept_redirects 0", new: "ipv6/conf/enp0s4/accept_redirects 1"},
	{checks: []string{"sysctl.secure-redirects"}, fact: "sysctl", old: "all/secure_redirects 0", new: "all/secure_redirects 1"},
	{checks: []string{"sysctl.send-redirects"}, fact: "sysctl", old: "all/send_redirects 0", new: "all/send_redirects 1"},
	{checks: []string{"sysctl.source-route"}, fact: "sysctl", old: "ipv4/conf/all/accept_source_route 0", new: "ipv4/conf/all/accept_source_route 1"},
	{checks: []string{"sysctl.icmp-broadcasts"}, fact: "sysctl", old: "icmp_echo_ignore_broadcasts 1", new: "icmp_echo_ignore_broadcasts 0"},
	{checks: []string{"sysctl.icmp-bogus-errors"}, fact: "sysctl", old: "bogus_error_responses 1", new: "bogus_error_responses 0"},
	{checks: []string{"sysctl.rp-filter"}, fact: "sysctl", old: "default/rp_filter 1", new: "default/rp_filter 0"},
	{checks: []string{"sysctl.syncookies"}, fact: "sysctl", old: "tcp_syncookies 1", new: "tcp_syncookies 0"},
	{checks: []string{"sysctl.forwarding"}, fact: "sysctl", old: "ipv4/ip_forward 0", new: "ipv4/ip_forward 1"},

	{checks: []string{"users.login-user", "users.password", "users.no-others"}, fact: "users", old: "linux 1000", new: "debian 1000"},
	{checks: []string{"users.login-user"}, fact: "users", old: "linux 1000 /bin/bash", new: "linux 1000 /usr/sbin/nologin"},
	{checks: []string{"users.login-user"}, fact: "users", old: "linux 1000", new: "linux 0"},
	{checks: []string{"users.password"}, fact: "users", old: "/bin/bash hash y", new: "/bin/bash locked -"},
	{checks: []string{"users.password"}, fact: "users", old: "/bin/bash hash y", new: "/bin/bash hash 1"},
	{checks: []string{"users.sudo"}, fact: "sudo", old: "NOPASSWD: ALL", new: "ALL"},
	{checks: []string{"users.sudo"}, fact: "sudo", old: "as-user 0", new: "as-user "},
	{checks: []string{"users.root-locked"}, fact: "users", old: "root 0 /bin/bash locked", new: "root 0 /bin/bash hash"},
	{checks: []string{"users.root-locked"}, fact: "users", old: "root 0 /bin/bash locked", new: "root 0 /bin/bash empty"},
	{checks: []string{"users.no-others"}, fact: "users", old: "daemon 1 /usr/sbin/nologin locked", new: "daemon 1 /usr/sbin/nologin hash"},
	{checks: []string{"users.no-others"}, fact: "users", old: "daemon 1 ", new: "daemon 0 "},
	{checks: []string{"users.no-others"}, fact: "users", old: "daemon 1 /usr/sbin/nologin", new: "builder 1001 /bin/sh"},

	{checks: []string{"users.accounts"}, fact: "accounts", old: "group disk:x:6:", new: "group disk:x:6:www-data"},
	{checks: []string{"users.accounts"}, fact: "accounts", old: "passwd irc:x:39", new: "passwd irc:x:0"},
	{checks: []string{"users.accounts"}, fact: "accounts", old: "passwd irc:x:39", new: "passwd +::::::\npasswd irc:x:39"},
	{checks: []string{"users.accounts"}, fact: "accounts", old: "mode 640 root shadow /etc/shadow\n", new: "mode 644 root shadow /etc/shadow\n"},
	{checks: []string{"users.accounts"}, fact: "accounts", old: "shadow irc:locked", new: "shadow irc:empty"},
	{checks: []string{"users.accounts"}, fact: "accounts", old: "group           files", new: "group           files nis"},
	{checks: []string{"users.accounts"}, fact: "accounts", old: "master-passwd ", new: "other ", status: Skipped},
	{checks: []string{"users.sudo-rules"}, fact: "sudo-rules", old: `"usergroup": "sudo"`, new: `"usergroup": "users"`},
	{checks: []string{"users.sudo-rules"}, fact: "sudo-rules", old: `"secure_path": "/usr/local`, new: `"secure_path": "/tmp:/usr/local`},
	{checks: []string{"users.sudo-rules"}, fact: "sudo-rules", old: `{ "secure_path": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" }`, new: `{ "use_pty": true }`},
	{checks: []string{"users.sudo-rules"}, fact: "sudo-rules", old: `"env_reset": true`, new: `"env_reset": false`},
	{checks: []string{"users.sudo-rules"}, fact: "sudo-rules", old: `{ "mail_badpass": true }`, new: `{ "authenticate": false }`},
	{checks: []string{"users.authorized-keys"}, fact: "authorized-keys", old: "keys linux 600", new: "keys www-data 600"},
	{checks: []string{"users.authorized-keys"}, fact: "authorized-keys", old: "sleep 10;exit 142", new: "exec /bin/sh"},
	{checks: []string{"users.authorized-keys"}, fact: "authorized-keys", old: "names ", new: "file /etc/ssh/sshrc\nnames "},

	{checks: []string{"console.password-secret"}, fact: "console-secret", old: "holds refused 600", new: "holds readable 644"},
	{checks: []string{"console.password-secret"}, fact: "console-secret", old: "lacks refused 600 root:root /var/log/cloud", new: "lacks readable 644 root:root /var/log/cloud"},
	{checks: []string{"console.password-secret"}, fact: "console-secret", old: "readable 644 root:root /etc/passwd", new: "refused 644 root:root /etc/passwd", status: Error},
	{checks: []string{"console.password-secret"}, fact: "console-secret", old: "holds ", new: "lacks ", status: Error},
	{checks: []string{"console.password-secret"}, fact: "console-secret", old: "holds refused 600 root:root", new: "holds refused 640 root:www-data"},
	{checks: []string{"console.password-secret"}, fact: "console-secret", old: "holds refused 600 root:root", new: "holds refused 600 www-data:www-data"},
	{checks: []string{"console.password-leaks"}, fact: "console-leaks", old: "journal 0", new: "cmdline root 812 sh\njournal 0"},
	{checks: []string{"console.password-leaks"}, fact: "console-leaks", old: "journal 0", new: "environ www-data 812 sh\njournal 0"},
	{checks: []string{"console.password-leaks"}, fact: "console-leaks", old: "journal 0", new: "environ gone 812 -\njournal 0"},
	{checks: []string{"console.password-leaks"}, fact: "console-leaks", old: "journal 0", new: "journal 1"},
	{checks: []string{"console.password-leaks"}, fact: "console-leaks", old: "units 0", new: "units 2"},
	{checks: []string{"console.password-leaks"}, fact: "console-leaks", old: "kernel 0", new: "kernel 1"},
	{checks: []string{"console.password-leaks"}, fact: "console-leaks", old: "searched 94", new: "searched 0", status: Error},
	{checks: []string{"console.password-leaks"}, fact: "console-leaks", old: "kernel 0\n", new: "", status: Error},
	{checks: []string{"console.serial", "kernel.command-line"}, fact: "boot", old: "console=ttyS0,115200", new: "console=ttyS1,115200"},
	{checks: []string{"console.serial"}, fact: "services", old: "Id=serial-getty@ttyS0.service\nLoadState=loaded\nActiveState=active",
		new: "Id=serial-getty@ttyS0.service\nLoadState=loaded\nActiveState=inactive"},

	{checks: []string{"net.listeners-tcp"}, fact: "sockets", old: "tcp 00000000:0016", new: "tcp 00000000:0050"},
	{checks: []string{"net.listeners-tcp"}, fact: "sockets", old: "tcp 3600007F:0035", new: "tcp 8100A8C0:0035"},
	{checks: []string{"net.listeners-tcp"}, fact: "sockets", old: "ssh.service /usr/sbin/sshd", new: "ssh.service /usr/sbin/dropbear"},
	{checks: []string{"net.listeners-tcp"}, fact: "sockets", old: "ssh.service /usr/sbin/sshd", new: "ssh.service /usr/local/sbin/sshd"},
	{checks: []string{"net.listeners-tcp"}, fact: "sockets", old: "ssh.service /usr/sbin/sshd", new: "evil.service /usr/sbin/sshd"},
	{checks: []string{"net.listeners-tcp"}, fact: "sockets", old: "socket net:[4026531840] tcp6 ", new: "socket net:[4026531840] tcp6 00000000000000000000000000000000:1F90 99\nsocket net:[4026531840] tcp6 "},
	{checks: []string{"net.listeners-udp"}, fact: "sockets", old: "udp 3600007F:0035", new: "udp 00000000:14E9"},
	{checks: []string{"net.listeners-udp"}, fact: "sockets", old: "udp 8100A8C0:0044", new: "udp 8100A8C0:0045"},
	{checks: []string{"net.listeners-udp", "net.sockets-other"}, fact: "sockets", old: "/usr/lib/systemd/systemd-networkd", new: "/tmp/systemd-networkd"},
	{checks: []string{"net.listeners-loopback"}, fact: "sockets", old: "tcp 3600007F:0035", new: "tcp 3600007F:0036"},
	{checks: []string{"net.sockets-other"}, fact: "sockets", old: "device net", new: "protocol net:[4026531840] SCTP 1\ndevice net"},
	{checks: []string{"net.sockets-other"}, fact: "sockets", old: "raw6 00000000000000000000000000000000:003A", new: "raw6 00000000000000000000000000000000:0006"},
	{checks: []string{"net.sockets-other"}, fact: "sockets", old: "holder 0 377 dbus.service /usr/bin/dbus-daemon", new: "holder 0 377 evil.service /usr/bin/python3"},
	{checks: []string{"net.sockets-other"}, fact: "sockets", old: "packet 2:88cc", new: "packet 2:0004"},
	{checks: []string{"net.sockets-other"}, fact: "sockets", old: "socket net:[4026531840] packet", new: "socket net:[4026531840] unix @x 7\nsocket net:[4026531840] packet"},
	{checks: []string{"net.sockets-other"}, fact: "sockets", old: "device net", new: "something new\ndevice net"},
	{checks: []string{"net.namespaces"}, fact: "sockets", old: "holder 0 ", new: "ns net:[1] /proc/1/root/run/netns/x\nholder 0 "},
	{checks: []string{"net.namespaces"}, fact: "sockets", old: "holder 0 ", new: "ns net:[1] /proc/9/ns/net\ndevice net:[1] veth0\nholder 0 "},
	{checks: []string{"net.namespaces"}, fact: "sockets", old: "holder 0 ", new: "ns net:[1] /proc/9/ns/net\nsocket net:[1] tcp 00000000:0016 14877\nholder 0 "},
	{checks: []string{"net.listeners-later"}, fact: "sockets-later", old: "tcp 3500007F:0035", new: "tcp 00000000:1F90"},
	{checks: []string{"net.state"}, fact: "net-state", old: "rule 32766:", new: "rule 100:"},
	{checks: []string{"net.state"}, fact: "net-state", old: "device lo ", new: "device wg0 virtual 0x91\ndevice lo "},
	{checks: []string{"net.state"}, fact: "net-state", old: "hardware 0x1003", new: "hardware 0x1103"},
	{checks: []string{"net.state"}, fact: "net-state", old: "route default via 192.168.0.1", new: "route 203.0.113.0/24 via 192.168.0.66 dev enp0s4\nroute default via 192.168.0.1"},
	{checks: []string{"net.state"}, fact: "net-state", old: "route default via 192.168.0.1", new: "route 203.0.113.0/24 via 192.168.0.1 dev enp0s4\nroute default via 192.168.0.1"},
	{checks: []string{"net.state"}, fact: "net-state", old: "qdisc noqueue lo", new: "qdisc clsact enp0s4"},
	{checks: []string{"net.state"}, fact: "net-state", old: "bpf bpf-prog /usr/lib/systemd/systemd", new: "bpf bpf-prog /usr/bin/evil"},
	{checks: []string{"net.state"}, fact: "net-state", old: "qdisc noqueue lo", new: "nft table inet filter {"},
	{checks: []string{"net.state"}, fact: "net-state", old: "device ", new: "gerät ", status: Error},
	{checks: []string{"net.ports-outside"}, fact: "wire-ports", old: "protocol 192.168.0.129 2\n", new: "tcp 192.168.0.129 8080\n"},
	{checks: []string{"net.ports-outside"}, fact: "wire-ports", old: "udp 192.168.0.129 68", new: "udp 192.168.0.129 161"},
	{checks: []string{"net.ports-outside"}, fact: "wire-ports", old: "protocol 192.168.0.129 103", new: "protocol 192.168.0.129 132"},
	{checks: []string{"net.quiet"}, fact: "wire-flows", old: "dhcp - 67", new: "tcp 198.51.100.1 443 1 - \"x\"\ndhcp - 67"},
	{checks: []string{"net.quiet"}, fact: "wire-flows", old: "dhcp - 67", new: "ntp 198.51.100.123 123 4 - \"\"\ndhcp - 67"},
	{checks: []string{"net.quiet"}, fact: "wire-flows", old: "dhcp - 67", new: "dns 100.125.4.25 53 1 A:telemetry.example \"\"\ndhcp - 67"},
	{checks: []string{"ntp.asked", "net.quiet"}, fact: "wire-flows", old: "123 8 ntp02.otc-service.com", new: "123 8 -"},
	{checks: []string{"sshd.everywhere"}, fact: "wire-ssh", old: "### 192.168.0.129:22", new: "### 192.168.0.129:2222"},
	{checks: []string{"sshd.everywhere"}, fact: "wire-ssh", old: "login refused", new: "login accepted"},
	{checks: []string{"sshd.everywhere"}, fact: "wire-ssh", old: "login refused", new: "another host key"},
	{checks: []string{"sshd.everywhere"}, fact: "wire-ssh", old: "hostkey ssh-ed25519", new: "hostkey ssh-rsa"},
	{checks: []string{"sshd.weak-refused"}, fact: "wire-weak", old: "cipher refused", new: "cipher accepted"},
	{checks: []string{"sshd.weak-refused"}, fact: "wire-weak", old: "cipher refused", new: "cipher undecided", status: Error},
	{checks: []string{"sshd.terrapin"}, fact: "wire-algorithms", old: ",kex-strict-s-v00@openssh.com", new: ""},
	{checks: []string{"sshd.offered-methods"}, fact: "wire-password", old: "offered publickey", new: "offered publickey,hostbased"},
	{checks: []string{"net.dhcp"}, fact: "network", old: " dynamic ", new: " "},
	{checks: []string{"net.dhcp"}, fact: "network", old: "rendered ", new: "found "},

	{checks: []string{"ntp.servers"}, fact: "ntp-config", old: "server ntp02.otc-service.com iburst", new: ""},
	{checks: []string{"ntp.servers"}, fact: "ntp-config", old: "driftfile", new: "pool pool.example iburst\ndriftfile"},
	{checks: []string{"ntp.running", "ntp.servers"}, fact: "services", old: "chrony.service\nLoadState=loaded", new: "chrony.service\nLoadState=masked"},
	{checks: []string{"ntp.running"}, fact: "services", old: "chrony.service\nLoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled",
		new: "chrony.service\nLoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=disabled"},
	{checks: []string{"entropy.rng-tools"}, fact: "packages", old: " rng-tools5 ", new: " rng-toys "},
	{checks: []string{"entropy.rngd"}, fact: "services", old: "rngd.service\nLoadState=loaded", new: "rngd.service\nLoadState=masked"},
	{checks: []string{"entropy.rngd"}, fact: "processes", old: " rngd\n", new: " rng\n"},
	{checks: []string{"security.apparmor"}, fact: "apparmor", old: "enabled Y", new: "enabled N"},
	{checks: []string{"security.apparmor"}, fact: "apparmor", old: ",apparmor", new: ""},
	{checks: []string{"system.failed-units"}, fact: "failed-units", old: "", new: "bad.service loaded failed failed Bad\n"},

	{checks: []string{"cloud-init.finished"}, fact: "cloud-init", old: `"errors": []`, new: `"errors": ["('scripts-user', ...)"]`},
	{checks: []string{"cloud-init.finished"}, fact: "cloud-init-stages", old: `"errors": []`, new: `"errors": ["failed"]`},
	{checks: []string{"cloud-init.finished"}, fact: "cloud-init", old: `"v1"`, new: `"v2"`},
	{checks: []string{"cloud-init.finished"}, fact: "cloud-init", old: `{`, new: `[`, status: Error},
	{checks: []string{"cloud-init.datasources"}, fact: "cloud-config", old: "ConfigDrive,", new: ""},
	{checks: []string{"cloud-init.datasources"}, fact: "cloud-config", old: "datasource_list:", new: "sources:"},
	{checks: []string{"cloud-init.hostname"}, fact: "hostname", old: "resolves 127.0.1.1", new: "resolves "},
	{checks: []string{"cloud-init.hostname"}, fact: "hostname", old: "kernel otc-sandbox", new: "kernel debian"},
	{checks: []string{"disk.root-grown"}, fact: "disk", old: "filesystem-bytes 79", new: "filesystem-bytes 39"},
	{checks: []string{"disk.root-grown"}, fact: "disk", old: "disk-bytes 8", new: "disk-bytes 9", status: Error},
	{checks: []string{"disk.root-by-name"}, fact: "boot", old: "root=LABEL=cloudimg-rootfs", new: "root=/dev/vda1"},
	{checks: []string{"disk.root-by-name"}, fact: "boot", old: "LABEL=cloudimg-rootfs / ext4", new: "/dev/vda1 / ext4"},
	{checks: []string{"drivers.xen"}, fact: "initrd", old: "initrd xen-blkfront.ko", new: "initrd xen-blkback.ko"},
	{checks: []string{"drivers.virtio"}, fact: "initrd", old: "initrd virtio_scsi.ko", new: ""},
	{checks: []string{"drivers.ixgbevf"}, fact: "modules", old: "ixgbevf /lib/modules", new: "ixgbevf missing /lib/modules"},

	{checks: []string{"updates.repositories"}, fact: "apt-targets", old: " bookworm-security main\n", new: " bookworm-proposed main\n"},
	{checks: []string{"updates.repositories"}, fact: "apt-targets", old: "deb http://debmirror.otc-service.com/debian/ bookworm main\n", new: ""},
	{checks: []string{"updates.repositories"}, fact: "apt-targets", old: "deb http://debmirror.otc-service.com/debian/ bookworm main\n",
		new: "deb http://debmirror.otc-service.com/debian/ bookworm main\ndeb http://debmirror.otc-service.com/debian/ bookworm contrib\n"},
	{checks: []string{"updates.repositories"}, fact: "package-sources", old: "Types: deb\n", new: "Types: deb\nArchitectures: arm64\n"},
	{checks: []string{"updates.no-build-mirror"}, fact: "apt-config", old: "Acquire \"\";", new: "Acquire \"\";\n# mirror.example:3142\n"},
	{checks: []string{"updates.no-build-mirror"}, fact: "package-sources", old: "URIs: http://debmirror", new: "# URIs: http://mirror.example:3142/debian\nURIs: http://debmirror"},
	{checks: []string{"updates.verified"}, fact: "package-sources", old: "URIs:", new: "Trusted: yes\nURIs:"},
	{checks: []string{"updates.verified"}, fact: "package-sources", old: "URIs:", new: "Valid-Until-Max: 9999999\nURIs:"},
	{checks: []string{"updates.verified"}, fact: "apt-config", old: "\nDPkg \"\";", new: "\nAPT::Get::AllowUnauthenticated \"true\";\nDPkg \"\";"},
	{checks: []string{"updates.verified"}, fact: "apt-config", old: "Acquire::AllowInsecureRepositories \"0\"", new: "Acquire::AllowInsecureRepositories \"1\""},
	{checks: []string{"updates.options"}, fact: "apt-config", old: "\nDPkg \"\";", new: "\nDPkg::Post-Invoke:: \"sh /opt/x\";\nDPkg \"\";"},
	{checks: []string{"updates.options"}, fact: "apt-config", old: "Dir::State \"var/lib/apt\"", new: "Dir::State \"opt/apt\""},
	{checks: []string{"updates.options"}, fact: "package-options", old: "no-debsig", new: "no-debsig\nforce-all"},
	{checks: []string{"updates.preferences"}, fact: "package-options", old: "### /etc/dpkg", new: "### /etc/apt/preferences.d/x\nPackage: *\n### /etc/dpkg"},
	{checks: []string{"updates.keys"}, fact: "package-keys", old: " debian-archive-keyring ", new: " - "},
	{checks: []string{"updates.keys"}, fact: "package-keys", old: "key /usr/share", new: "missing /etc/apt/keyrings/x.gpg\nkey /usr/share"},
	{checks: []string{"updates.keys"}, fact: "package-keys", old: "debian-archive-keyring mQIN", new: "debian-archive-keyring !QIN"},
	{checks: []string{"updates.not-automatic"}, fact: "apt-config", old: `Unattended-Upgrade "0"`, new: `Unattended-Upgrade "1"`},
	{checks: []string{"updates.not-automatic"}, fact: "update-units", old: "unit apt-daily.timer inactive", new: "unit apt-daily.timer active"},
	{checks: []string{"updates.not-automatic"}, fact: "update-units", old: "file apt-daily.timer masked", new: "file apt-daily.timer enabled"},
	{checks: []string{"packages.state"}, fact: "package-state", old: "looked", new: "foreign i386\nlooked"},
	{checks: []string{"packages.state"}, fact: "package-state", old: "looked", new: "", status: Error},
	{checks: []string{"packages.state"}, fact: "packages", old: "ii  openssh-server", new: "hi  openssh-server"},
	{checks: []string{"drivers.packaged"}, fact: "agents", old: "ixgbevf - linux-image-6.1.0-56-amd64", new: "ixgbevf 4.5.3 -"},

	{checks: []string{"identity.machine-id"}, fact: "identity", old: "machine-id ", new: "machine-id x"},
	{checks: []string{"sysctl.kernel"}, fact: "sysctl", old: "kernel/randomize_va_space 2", new: "kernel/randomize_va_space 0"},
	{checks: []string{"sysctl.kernel"}, fact: "sysctl", old: "kernel/randomize_va_space 2\n", new: "", status: Error},
	{checks: []string{"sysctl.kernel"}, fact: "sysctl", old: "net/ipv4/conf/default/route_localnet 0", new: "net/ipv4/conf/default/route_localnet 1"},
	{checks: []string{"sysctl.kernel"}, fact: "sysctl", old: "kernel/core_pattern core", new: "kernel/core_pattern |/bin/sh"},
	{checks: []string{"sysctl.forwarding"}, fact: "sysctl", old: "net/ipv6/conf/default/forwarding 0", new: "net/ipv6/conf/default/forwarding 1"},
	{checks: []string{"sysctl.defaults"}, fact: "sysctl", old: "vm/dirty_ratio 20", new: "vm/dirty_ratio 90"},
	{checks: []string{"sysctl.defaults"}, fact: "sysctl", old: "vm/dirty_ratio 20", new: "vm/dirty_ratio 20\nvm/unheard_of 1"},
	{checks: []string{"sysctl.defaults"}, fact: "sysctl", old: "kernel/osrelease 6.1.", new: "kernel/osrelease 7.77.", status: Skipped},
	{checks: []string{"sysctl.next-boot"}, fact: "sysctl-next", old: "kernel.kptr_restrict = 1\n", new: ""},
	{checks: []string{"sysctl.next-boot"}, fact: "sysctl-next", old: "kernel.sysrq = 0", new: "kernel.sysrq = 0\n-net/ipv4/conf/eth7/accept_redirects = 1"},
	{checks: []string{"sysctl.next-boot"}, fact: "sysctl-next", old: "kernel.sysrq = 0", new: "kernel.sysrq = 0\nnet.ipv4.conf.eth*.accept_local = 1"},
	{checks: []string{"sysctl.next-boot"}, fact: "sysctl-next", old: "### end", new: "### network /etc/systemd/networkd.conf\nIPForward=ipv4\n### end"},
	{checks: []string{"sysctl.next-boot"}, fact: "sysctl-next", old: "### end", new: "", status: Error},
	{checks: []string{"kernel.command-line"}, fact: "boot", old: "no_timer_check", new: "mitigations=off"},
	{checks: []string{"kernel.command-line"}, fact: "boot", old: "no_timer_check", new: "sysctl.kernel.x=1"},
	{checks: []string{"kernel.command-line-next"}, fact: "boot-next", old: "single", new: "single init=/bin/sh"},
	{checks: []string{"kernel.command-line-next"}, fact: "boot-next", old: "GRUB_TIMEOUT=1", new: "GRUB_EARLY_INITRD_LINUX_CUSTOM=x"},
	{checks: []string{"kernel.version"}, fact: "kernel", old: "installed 6.1.0-56-amd64", new: "installed 6.1.0-56-amd64\ninstalled 6.1.0-100-amd64"},
	{checks: []string{"kernel.mitigations"}, fact: "kernel", old: "vulnerability mds Not affected", new: "vulnerability mds Vulnerable; SMT vulnerable"},
	{checks: []string{"kernel.mitigations"}, fact: "kernel", old: "spectre_v2 Mitigation: Retpolines", new: "spectre_v2 Vulnerable"},
	{checks: []string{"kernel.integrity"}, fact: "kernel", old: "kexec_loaded 0", new: "kexec_loaded 1"},
	{checks: []string{"kernel.integrity"}, fact: "kernel", old: "tainted 0", new: "tainted 4096"},
	{checks: []string{"kernel.modules"}, fact: "modules-loaded", old: "module rfkill - packaged", new: "module rfkill (OE) foreign"},
	{checks: []string{"kernel.module-settings"}, fact: "settings", old: "### end", new: "### /etc/modprobe.d/x.conf\ninstall x /bin/sh\n### end"},
	{checks: []string{"system.settings"}, fact: "settings", old: "LLMNR=no", new: "LLMNR=yes"},
	{checks: []string{"security.apparmor-settings"}, fact: "settings", old: "### end", new: "### /etc/apparmor.d/local/x\n/** rw,\n### end"},
	{checks: []string{"security.apparmor-profiles"}, fact: "apparmor", old: "lsb_release (enforce)", new: "lsb_release (complain)"},
	{checks: []string{"system.mounts"}, fact: "mounts", old: "end", new: "99 26 254:1 /bin/true /usr/bin/passwd rw - ext4 /dev/vda1 rw\nend"},
	{checks: []string{"ntp.configuration"}, fact: "ntp-config", old: "cmdport 0", new: "allow 0/0"},
	{checks: []string{"ntp.daemon"}, fact: "time", old: "arguments chronyd /usr/sbin/chronyd -F 1", new: "arguments chronyd /usr/sbin/chronyd -f /etc/x"},
	{checks: []string{"ntp.sources"}, fact: "time", old: "activity 2", new: "activity 3"},
	{checks: []string{"dns.hosts"}, fact: "resolver", old: "127.0.0.1 localhost", new: "127.0.0.1 localhost\n10.0.0.1 ntp01.otc-service.com"},
	{checks: []string{"dns.resolver"}, fact: "resolver", old: "nameserver 127.0.0.53", new: "nameserver 8.8.8.8"},
	{checks: []string{"entropy.source"}, fact: "time", old: "rngd-opens /dev/hwrng", new: "rngd-opens /tmp/zero"},
	{checks: []string{"system.clock"}, fact: "time", old: "zone /usr/share/zoneinfo/Etc/UTC", new: "zone /usr/share/zoneinfo/Asia/Tokyo"},
	{checks: []string{"system.journal"}, fact: "time", old: "journal persistent", new: "journal volatile"},
	{checks: []string{"system.failed-units"}, fact: "failed-units", old: "manager running", new: "manager degraded"},
	{checks: []string{"system.failed-units"}, fact: "failed-units", old: "manager running", new: "", status: Error},
	{checks: []string{"sshd.host-key-sizes"}, fact: "identity", old: " 3072 ", new: " 1024 "},
	{checks: []string{"sshd.host-key-sizes"}, fact: "identity", old: "(ED25519)", new: "(DSA)"},
	{checks: []string{"sshd.permit-root-login"}, fact: "sshd-views", old: "none needed", new: "### sshd -p 2222 -o PermitRootLogin=yes\npermitrootlogin yes"},
	{checks: []string{"gather.complete"}, fact: "script", old: "complete", new: "cut"},
	{checks: []string{"packages.required"}, fact: "packages", old: " openssh-server ", new: " openssh-client "},
}

func TestSpoiledMachines(t *testing.T) {
	s := &Suite{Profile: OTC(), Params: goodParams()}
	good := goodFacts(t)
	before := results(t, s, good)
	canFail := map[string]bool{"console.password-hint": true, "uvp.monitor": true} // in tests of their own
	for _, tc := range spoils {
		t.Run(tc.checks[0]+" "+tc.new, func(t *testing.T) {
			f := good
			f.Facts = maps.Clone(good.Facts)
			fact := f.Facts[tc.fact]
			if tc.old == "" {
				fact.Output = tc.new
			} else {
				require.Contains(t, fact.Output, tc.old)
				fact.Output = strings.ReplaceAll(fact.Output, tc.old, tc.new)
			}
			f.Facts[tc.fact] = fact
			status := cmpOr(string(tc.status), string(Fail))
			var changed []string
			for id, r := range results(t, s, f) {
				if r.Status != before[id].Status {
					changed = append(changed, id)
					assert.EqualValues(t, status, r.Status, "%s: %+v", id, r)
					canFail[id] = canFail[id] || r.Status == Fail
				}
				if r.Status == Fail {
					assert.NotEmpty(t, r.Expected, id)
					assert.NotEmpty(t, r.Found, id)
				}
			}
			assert.ElementsMatch(t, tc.checks, changed)
		})
	}
	for _, c := range s.Profile.Checks {
		assert.True(t, canFail[c.ID], "nothing makes %s fail: a check that cannot fail is none", c.ID)
	}
}

// A fact that timed out or is missing is an error of every check that needs
// it, never a pass.
func TestUnreadFacts(t *testing.T) {
	s := &Suite{Profile: OTC(), Params: goodParams()}
	good := goodFacts(t)
	for name := range good.Facts {
		for _, remove := range []bool{true, false} {
			f := good
			f.Facts = maps.Clone(good.Facts)
			f.Facts[name] = Fact{Output: good.Facts[name].Output, Error: "it took too long"}
			if remove {
				delete(f.Facts, name)
			}
			got := results(t, s, f)
			for _, c := range s.Profile.Checks {
				if slices.Contains(c.Needs, name) {
					assert.Equal(t, Error, got[c.ID].Status, c.ID)
					if name != "script" || remove {
						assert.Contains(t, got[c.ID].Reason, name)
					}
				}
			}
		}
	}
}

// Where gathering was cut, the cause is said once, not at each check.
func TestCauseIsSaidOnce(t *testing.T) {
	f := Facts{Facts: map[string]Fact{"script": {Error: "sudo: a password is required"}}}
	for id, r := range results(t, &Suite{Profile: OTC(), Params: goodParams()}, f) {
		assert.Equal(t, Error, r.Status, id)
		if id == "gather.complete" {
			assert.Contains(t, r.Reason, "sudo: a password is required")
		} else {
			assert.Equal(t, "not gathered: see gather.complete", r.Reason, id)
		}
	}
}

// Only what the profile needs is read, and nothing is written where that is asked.
func TestWantedFacts(t *testing.T) {
	g := gatherer{wanted: (&Suite{Profile: Profile{Checks: []Check{{Needs: []string{"users", "sshd-match", "wire-algorithms"}}}}}).wanted()}
	assert.Equal(t, []string{"sshd-config", "sshd-match", "users"}, g.scriptFacts())
	s := Suite{Profile: Profile{Checks: []Check{{Needs: []string{"users"}}}}, Facts: []string{"architecture"}}
	g = gatherer{wanted: s.wanted()}
	assert.Equal(t, []string{"architecture", "users"}, g.scriptFacts())
	g = gatherer{wanted: (&Suite{}).wanted(), readOnly: true}
	assert.NotContains(t, g.scriptFacts(), "root-key")
	assert.Greater(t, len(g.scriptFacts()), 25)

	f := goodFacts(t)
	f.Facts["root-key"] = Fact{Omitted: "nothing may be written on the machine"}
	f.Facts["wire-root"] = Fact{Omitted: "nothing may be written on the machine"}
	got := results(t, &Suite{Profile: OTC(), Params: goodParams()}, f)
	assert.Equal(t, Skipped, got["sshd.root-login"].Status)
	assert.Equal(t, "nothing may be written on the machine", got["sshd.root-login"].Reason)
}

func TestConsolePasswordHint(t *testing.T) {
	f := goodFacts(t)
	f.Facts["console"] = Fact{Output: "password absent\n"}
	f.Facts["wire-password"] = Fact{Error: "the console showed no password to try"}
	got := results(t, &Suite{Profile: OTC(), Params: goodParams()}, f)
	assert.Equal(t, Fail, got["console.password-hint"].Status)
	assert.Equal(t, Error, got["console.password-secret"].Status)
	assert.Equal(t, Error, got["sshd.password-login"].Status)
}

// A whole agent as its Debian package has it, with a unit and on KVM.
const goodAgent = "package ii uvp-monitor 2.2.0.316-4\nfile /usr/bin/uvp-monitor uvp-monitor\nfile /etc/init.d/uvp-monitor uvp-monitor\n" +
	"unit LoadState loaded\nunit ActiveState active\nunit UnitFileState generated\nstarts /etc/rc3.d/S35uvp-monitor\n" +
	"process 700 uvp-monitor /usr/bin/uvp-monitor\nprocess 701 uvp-monitor /usr/bin/uvp-monitor\n"

func TestUVPMonitor(t *testing.T) {
	const onXen = goodAgent + "hypervisor xen\nxenbus /dev/xen/xenbus\n"
	replace := func(s, old, by string) string {
		require.Contains(t, s, old)
		return strings.ReplaceAll(s, old, by)
	}
	for _, tc := range []struct {
		name, agents string
		state        UVPState
		status       Status
		found        string
	}{
		{"absent", "unit LoadState not-found\n", UVPRequired, Fail, "not installed"},
		{"absent by default", "", "", Fail, "not installed"},
		{"absent, optional", "", UVPOptional, Skipped, "not installed"},
		{"absent, forbidden", "", UVPForbidden, Pass, "not installed"},
		{"whole", goodAgent, UVPRequired, Pass, "installed, 2 processes"},
		{"whole, optional", goodAgent, UVPOptional, Pass, "installed"},
		{"whole, forbidden", goodAgent, UVPForbidden, Fail, "installed"},
		{"no such state", goodAgent, "perhaps", Error, ""},
		{"whole on Xen", onXen, UVPRequired, Pass, "2 processes"},
		{"without its bus on Xen", replace(onXen, "xenbus /dev/xen/xenbus\n", ""), UVPRequired, Fail, "neither /dev/xen/xenbus nor"},
		{"the other bus on Xen", replace(onXen, "/dev/xen/xenbus", "/proc/xen/xenbus"), UVPRequired, Pass, ""},
		{"its child is dead on Xen", replace(onXen, "process 701 uvp-monitor /usr/bin/uvp-monitor\n", ""), UVPRequired, Fail, "1 processes of 2"},
		{"it has nobody to speak with on KVM", replace(replace(goodAgent, "process 700 uvp-monitor /usr/bin/uvp-monitor\n", ""), "process 701 uvp-monitor /usr/bin/uvp-monitor\n", ""), UVPRequired, Pass, "0 processes"},
		{"broken, optional", replace(goodAgent, "process 701 uvp-monitor", "process 701 -"), UVPOptional, Fail, "701 - /usr/bin/uvp-monitor is not its package's"},
		{"its unit has failed", replace(goodAgent, "ActiveState active", "ActiveState failed"), UVPRequired, Fail, "its unit has failed"},
		{"its unit is masked", replace(goodAgent, "LoadState loaded", "LoadState masked"), UVPRequired, Fail, "masked"},
		{"does not start at boot", replace(goodAgent, "starts /etc/rc3.d/S35uvp-monitor\n", ""), UVPRequired, Fail, "does not start at boot"},
		{"another program", replace(goodAgent, "file /usr/bin/uvp-monitor uvp-monitor", "file /usr/bin/uvp-monitor -"), UVPRequired, Fail, "/usr/bin/uvp-monitor is not its package's"},
		{"held", replace(goodAgent, "package ii", "package hi"), UVPRequired, Fail, "held"},
		{"half installed", replace(goodAgent, "package ii", "package iH"), UVPRequired, Fail, "half installed"},
		{"a process of nobody's, forbidden", "process 9 - /opt/uvp-monitor\n", UVPForbidden, Fail, "installed, 1 processes"},
		{"files alone, forbidden", "file /etc/.uvp-monitor -\n", UVPForbidden, Fail, "installed"},
		{"CentOS 6 without its module", goodAgent + "release CentOS release 6.9 (Final)\n", UVPRequired, Fail, "no package kmod-uvpmod"},
		{"Oracle 6 without its module", goodAgent + "release Oracle Linux Server release 6.10\n", UVPRequired, Fail, "no package kmod-uvpmod"},
		{"CentOS 6 with its module", goodAgent + "release CentOS release 6.9 (Final)\npackage ii kmod-uvpmod 2.2.0.315-3.1\n", UVPRequired, Pass, ""},
		{"CentOS 7 needs none", goodAgent + "release CentOS Linux release 7.6.1810 (Core)\n", UVPRequired, Pass, ""},
		{"the module alone, forbidden", "package ii kmod-uvpmod 2.2.0.315-3.1\n", UVPForbidden, Fail, "installed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := Params{UVPMonitor: UVPMonitor{State: tc.state, Reason: "because"}}
			v := judgeUVP(Facts{Facts: map[string]Fact{"agents": {Output: tc.agents}}}, p)
			assert.Equal(t, tc.status, v.Status, "%+v", v)
			assert.Contains(t, v.Found, tc.found)
			if tc.status == Skipped {
				assert.Equal(t, "optional: because", v.Reason)
			}
		})
	}
	var s UVPState
	require.NoError(t, s.UnmarshalText([]byte("forbidden")))
	require.Error(t, s.UnmarshalText([]byte("maybe")))
}

// What dnf, yum and zypper have in files is judged by these, where they have no apt.
func TestPackageFilesOfRPM(t *testing.T) {
	const none = "no apt\n"
	const good = "### /etc/yum.repos.d/base.repo\n[base]\nbaseurl=http://repo.example/7\ngpgcheck=1\n"
	const conf = "### /etc/yum.conf\n[main]\ngpgcheck=1\nplugins=1\nlogfile=/var/log/yum.log\ninstallonly_limit=5\n"
	for _, tc := range []struct {
		sources, options, check, found string
	}{
		{good, conf, "", ""},
		{strings.Replace(good, "gpgcheck=1", "gpgcheck=0", 1), conf, "updates.verified", "gpgcheck=0 in /etc/yum.repos.d/base.repo"},
		{good + "sslverify = false\n", conf, "updates.verified", "sslverify = false"},
		{good, conf + "gpgcheck = No\n", "updates.verified", "/etc/yum.conf"},
		{good, conf + "### /etc/zypp/zypp.conf\nrepo_gpgcheck = off\n", "updates.verified", "repo_gpgcheck = off"},
		{good, conf + "proxy=http://192.0.2.1:3128\n", "updates.options", "proxy=http://192.0.2.1:3128"},
		{good, conf + "tsflags=noscripts\n", "updates.options", "tsflags"},
		{good, conf + "exclude=kernel* openssh*\n", "updates.preferences", "exclude=kernel*"},
		{good, conf + "### /etc/yum/pluginconf.d/versionlock.list\n0:openssh-7.4p1-21.*\n", "updates.preferences", "openssh-7.4p1"},
		{good, conf + "### /etc/zypp/locks\nsolvable_name: kernel-default\n", "updates.preferences", "kernel-default"},
		{good, conf + "### /etc/dnf/automatic.conf\napply_updates = yes\n", "updates.not-automatic", "apply_updates"},
		{good + "### /etc/yum.repos.d/more.repo\nbaseurl=http://192.0.2.1/x\n", conf, "updates.repositories", "also http://192.0.2.1/x"},
	} {
		facts := Facts{Facts: map[string]Fact{
			"package-sources": {Output: tc.sources}, "package-options": {Output: tc.options}, "apt-config": {Output: none}, "apt-targets": {Output: none},
			"update-units": {}, "package-keys": {}, "os-release": {Output: "ID=\"centos\"\nVERSION_ID=\"7\"\n"},
		}}
		for _, c := range updateChecks() {
			if !strings.HasPrefix(c.ID, "updates.") {
				continue
			}
			v := c.Judge(facts, Params{Repositories: []Repository{{URL: "http://repo.example/7"}}})
			if c.ID == tc.check {
				assert.Equal(t, Fail, v.Status, "%s: %s: %+v", tc.found, c.ID, v)
				assert.Contains(t, v.Found, tc.found)
			} else {
				assert.Contains(t, []Status{Pass, Skipped}, v.Status, "%s: %s: %+v", tc.found, c.ID, v)
			}
		}
	}
}

// A definition that does not say what it expects is a mistake, not a pass.
func TestMissingExpectations(t *testing.T) {
	got := results(t, &Suite{Profile: OTC()}, goodFacts(t))
	for id, want := range map[string]Status{
		"ntp.servers": Error, "updates.repositories": Error, "updates.no-build-mirror": Skipped, "disk.root-grown": Skipped,
		"cloud-init.hostname": Skipped, "packages.required": Skipped, "uvp.monitor": Fail,
	} {
		assert.Equal(t, want, got[id].Status, "%s: %+v", id, got[id])
	}
	p := goodParams()
	p.MirrorHosts = []string{"debmirror.otc-service.com"} // built from the repositories themselves
	assert.Equal(t, Skipped, results(t, &Suite{Profile: OTC(), Params: p}, goodFacts(t))["updates.no-build-mirror"].Status)
}

func TestWaivers(t *testing.T) {
	day := time.Date(2027, 6, 30, 0, 0, 0, 0, time.UTC)
	waiver := Waiver{Check: "ntp.servers", Reason: "lab", Expires: day}
	p := goodParams()
	p.NTPServers = []string{"ntp.example"}
	judgeAt := func(now time.Time, f Facts) Result {
		s := &Suite{Profile: OTC(), Params: p, Waivers: []Waiver{waiver}, Now: func() time.Time { return now }}
		return results(t, s, f)["ntp.servers"]
	}
	r := judgeAt(day.Add(-time.Second), goodFacts(t))
	assert.Equal(t, Waived, r.Status)
	assert.Equal(t, "lab (until 2027-06-30)", r.Reason)
	assert.Equal(t, "ntp.example", r.Expected)
	r = judgeAt(day, goodFacts(t))
	assert.Equal(t, Fail, r.Status)
	assert.Equal(t, "its waiver (lab) expired on 2027-06-30", r.Reason)
	unread := goodFacts(t)
	delete(unread.Facts, "ntp-config")
	assert.Equal(t, Error, judgeAt(day.Add(-time.Second), unread).Status)
}

func TestValidate(t *testing.T) {
	day := time.Date(2027, 6, 30, 0, 0, 0, 0, time.UTC)
	s := &Suite{Profile: OTC(), Waivers: []Waiver{
		{Check: "ntp.servers", Reason: "lab", Expires: day},
		{Check: "ntp.servers", Reason: "lab", Expires: day},
		{Check: "ntp.running", Expires: day},
		{Check: "entropy.rngd", Reason: "lab"},
		{Check: "ntp.serves", Reason: "lab", Expires: day},
	}}
	_, err := s.Run(t.Context(), Target{})
	require.EqualError(t, err, "cannot waive check ntp.servers twice\ncannot waive check ntp.running without a reason\n"+
		"cannot waive check entropy.rngd without an expiry date\n"+
		`cannot waive check "ntp.serves": profile "otc" has no such check`)
	var unknown *UnknownCheckError
	require.ErrorAs(t, err, &unknown)
	assert.Equal(t, "ntp.serves", unknown.Check)

	_, err = (&Suite{}).Judge(Facts{})
	require.ErrorContains(t, err, "it has no checks")
	c := OTC().Checks[0]
	_, err = (&Suite{Profile: Profile{Name: "p", Checks: []Check{c, c, {ID: "x.y"}}}}).Judge(Facts{})
	require.ErrorContains(t, err, "twice")
	require.ErrorContains(t, err, `check "x.y" lacks its ID or its judge`)
}

// A judge that forgets to decide is an error.
func TestVerdictWithoutStatus(t *testing.T) {
	c := Check{ID: "a.b", Judge: func(Facts, Params) Verdict { return Verdict{} }}
	r := results(t, &Suite{Profile: Profile{Name: "p", Checks: []Check{c}}}, Facts{})
	assert.Equal(t, Error, r["a.b"].Status)
}

// goldenReport has a check of each status, and text that a guest chose.
func goldenReport(t *testing.T) *Report {
	t.Helper()
	verdicts := []Verdict{
		{Status: Pass, Expected: "no", Found: "no"},
		{Status: Fail, Expected: "no", Found: "yes <&\"\x1b[31m\nfake line"},
		{Status: Error, Reason: "cannot read fact x: it took too long"},
		{Status: Skipped, Reason: "there is no IPv6"},
		{Status: Fail, Expected: "1", Found: "0"},
	}
	var p Profile
	p.Name = "otc"
	for i, v := range verdicts {
		p.Checks = append(p.Checks, Check{ID: "group.check-" + string(rune('a'+i)), Group: "group", Title: "holds", Severity: High,
			References: []string{"ref"}, Needs: []string{"x"}, Judge: func(Facts, Params) Verdict { return v }})
	}
	s := &Suite{Profile: p, Now: func() time.Time { return time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC) },
		Waivers: []Waiver{{Check: "group.check-e", Reason: "lab", Expires: time.Date(2027, 6, 30, 0, 0, 0, 0, time.UTC)}}}
	r, err := s.Judge(Facts{Host: "127.0.0.1:2222", Started: time.Date(2026, 11, 22, 3, 15, 7, 0, time.UTC), DurationMS: 20536, RoundTrips: 6,
		Facts: map[string]Fact{"x": {DurationMS: 210}}})
	require.NoError(t, err)
	return r
}

func TestReports(t *testing.T) {
	r := goldenReport(t)
	assert.Equal(t, Summary{Pass: 1, Fail: 1, Error: 1, Waived: 1, Skipped: 1}, r.Summary)
	assert.False(t, r.OK())
	assert.Len(t, r.Bad(), 2)
	var js, ju, text bytes.Buffer
	require.NoError(t, r.WriteJSON(&js))
	require.NoError(t, r.WriteJUnit(&ju))
	require.NoError(t, r.WriteText(&text))
	for name, got := range map[string][]byte{"report.json": js.Bytes(), "report.xml": ju.Bytes(), "report.txt": text.Bytes()} {
		golden(t, filepath.Join("testdata", name), got)
	}
	var back Report
	require.NoError(t, json.Unmarshal(js.Bytes(), &back))
	assert.Equal(t, *r, back)
	require.NoError(t, xml.Unmarshal(ju.Bytes(), new(junitSuites)))
	assert.NotContains(t, text.String(), "\x1b")
}

// A report without a single pass is no ground for a release.
func TestEmptyReportIsNotOK(t *testing.T) {
	assert.False(t, (&Report{}).OK())
	assert.False(t, (&Report{Summary: Summary{Skipped: 3}}).OK())
	assert.True(t, (&Report{Summary: Summary{Pass: 1, Waived: 1}}).OK())
}

func TestFactsRoundTrip(t *testing.T) {
	f := goodFacts(t)
	var b bytes.Buffer
	require.NoError(t, f.Save(&b))
	back, err := LoadFacts(&b)
	require.NoError(t, err)
	assert.Equal(t, f, back)
	for text, fault := range map[string]string{
		`{"hosts": ""}`: "unknown field", `{} {}`: "more text", `{`: "unexpected EOF",
		`{"host":"` + strings.Repeat("x", maxFactsFile): "more than 67108864 bytes",
	} {
		_, err := LoadFacts(strings.NewReader(text))
		assert.ErrorContains(t, err, fault)
	}
}

// A root file system on a logical volume is judged by what the definition says
// of it.
func TestRootOnALogicalVolume(t *testing.T) {
	volume := goodFacts(t)
	volume.Facts["disk"] = Fact{Output: "source /dev/mapper/systemVG-LVRoot\nfstype ext4\nfilesystem-bytes 4000000000\n"}
	volume.Facts["boot"] = Fact{Output: "### /proc/cmdline\nroot=/dev/systemVG/LVRoot\n### /etc/fstab\n/dev/mapper/systemVG-LVRoot / ext4 defaults 1 1\n"}
	partition := goodFacts(t)
	lvm := goodParams()
	lvm.LVM = true
	for _, tc := range []struct {
		name          string
		params        Params
		facts         Facts
		grown, byName Status
	}{
		{"as it says", lvm, volume, Skipped, Pass},
		{"not said", goodParams(), volume, Error, Fail},
		{"said and not there", lvm, partition, Fail, Pass},
	} {
		got := results(t, &Suite{Profile: OTC(), Params: tc.params}, tc.facts)
		assert.Equal(t, tc.grown, got["disk.root-grown"].Status, tc.name)
		assert.Equal(t, tc.byName, got["disk.root-by-name"].Status, tc.name)
	}
	for device, want := range map[string]bool{
		"/dev/mapper/a-b": true, "/dev/vg/root": true, "/dev/vda1": false, "/dev/disk/by-uuid/1": false, "/dev/disk/x": false,
		"/dev//x": false, "/dev/vg/": false, "": false, "vg/root": false,
	} {
		assert.Equal(t, want, isVolume(device), device)
	}
}

// Either kind of Xen drivers is enough, each as a pair, and the network's need
// not be in the initrd.
func TestDriversOfBothKinds(t *testing.T) {
	machine := func(initrd, modules string) Facts {
		f := goodFacts(t)
		f.Facts["initrd"] = Fact{Output: "kernel k\n" + initrd}
		f.Facts["modules"] = Fact{Output: modules}
		return f
	}
	const virtio = "initrd virtio_pci.ko\ninitrd virtio_blk.ko\ninitrd virtio_scsi.ko\n"
	const net = "virtio_net /lib/modules/virtio_net.ko \nixgbevf /lib/modules/ixgbevf.ko 2.16.1\n"
	for _, tc := range []struct {
		name        string
		facts       Facts
		xen, virtio Status
	}{
		{"classic", machine(virtio+"initrd xen-vbd.ko\n", net+"xen_vnif /lib/modules/xen-vnif.ko \n"), Pass, Pass},
		{"network drivers are modules", machine(virtio+"initrd xen-blkfront.ko\n", net+"xen_netfront /lib/modules/xen-netfront.ko \n"), Pass, Pass},
		{"built in", machine(virtio+"builtin xen-blkfront.ko\nbuiltin xen-netfront.ko\n", net), Pass, Pass},
		{"one of each kind", machine(virtio+"initrd xen-blkfront.ko\n", net+"xen_vnif /lib/modules/xen-vnif.ko \n"), Fail, Pass},
		{"the disk driver is a module only", machine(virtio, net+"xen_vbd x \nxen_vnif x \n"), Fail, Pass},
		{"network driver missing", machine(virtio+"initrd xen-vbd.ko\n", "xen_vnif missing \nvirtio_net missing \n"), Fail, Fail},
		{"neither", machine("initrd ext4.ko\n", net), Fail, Fail},
	} {
		got := results(t, &Suite{Profile: OTC(), Params: goodParams()}, tc.facts)
		assert.Equal(t, tc.xen, got["drivers.xen"].Status, "%s: %s", tc.name, got["drivers.xen"].Found)
		assert.Equal(t, tc.virtio, got["drivers.virtio"].Status, "%s: %s", tc.name, got["drivers.virtio"].Found)
	}
}

// A judge that panics is an error of its check; the others are judged.
func TestJudgeThatPanics(t *testing.T) {
	bad := Check{ID: "a.bad", Judge: func(Facts, Params) Verdict { panic("on fire") }}
	good := Check{ID: "a.good", Judge: func(Facts, Params) Verdict { return Verdict{Status: Pass} }}
	got := results(t, &Suite{Profile: Profile{Name: "p", Checks: []Check{bad, good}}}, Facts{})
	assert.Equal(t, Error, got["a.bad"].Status)
	assert.Equal(t, "its judge panicked: on fire", got["a.bad"].Reason)
	assert.Equal(t, Pass, got["a.good"].Status)
}

// What is empty says so, and does not panic.
func TestZeroValues(t *testing.T) {
	for _, err := range []error{&FactError{}, &UnknownCheckError{}} {
		assert.NotEmpty(t, err.Error())
	}
	var s Suite
	require.ErrorContains(t, s.Validate(), "it has no checks")
	_, err := s.Run(t.Context(), Target{})
	require.ErrorContains(t, err, "it has no checks")
	_, err = s.Gather(t.Context(), Target{})
	require.ErrorContains(t, err, "the target needs a signer")
	_, err = Facts{}.Text("x")
	require.EqualError(t, err, "cannot read fact x: it was not gathered")
	report, err := (&Suite{Profile: OTC()}).Judge(Facts{})
	require.NoError(t, err)
	assert.False(t, report.OK())
	assert.Zero(t, report.Summary.Pass)
	var b bytes.Buffer
	empty := &Report{}
	assert.False(t, empty.OK())
	assert.Empty(t, empty.Bad())
	require.NoError(t, errors.Join(empty.WriteJSON(&b), empty.WriteText(&b), empty.WriteJUnit(&b), Facts{}.Save(&b)))
	_, err = json.Marshal(Check{})
	require.NoError(t, err)
	for _, c := range OTC().Checks { // what is gathered may be empty
		facts := Facts{Facts: map[string]Fact{}}
		for _, need := range c.Needs {
			facts.Facts[need] = Fact{}
		}
		ask(c, facts, Params{})
		assert.NotContains(t, judge(c, facts, Params{}).Reason, "panicked", c.ID)
	}
}
