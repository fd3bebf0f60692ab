package ledger

import (
	"crypto/ed25519"
	"encoding/pem"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
)

const (
	bootPasswd  = "root:x:0:0:root:/root:/bin/bash\nsystemd-network:x:998:998::/:/usr/sbin/nologin\n"
	bootDebconf = "Name: grub-pc/install_devices\nValue: \n\nName: libc6/x\nValue: \n\n"
)

// hostKey is a pair of files of ssh-keygen, made of a byte.
func hostKey(t testing.TB, seed byte) (private, public string, key ssh.PublicKey) {
	t.Helper()
	secret := ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(seed), ed25519.SeedSize)))
	block, err := ssh.MarshalPrivateKey(secret, "")
	require.NoError(t, err)
	signer, err := ssh.NewSignerFromKey(secret)
	require.NoError(t, err)
	key = signer.PublicKey()
	return string(pem.EncodeToMemory(block)), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + " root@box\n", key
}

// goodBoot is a disk before and after the boot of a machine called box.
func goodBoot(t testing.TB) (b Boot, before, after *Listing) {
	t.Helper()
	private, public, host := hostKey(t, 1)
	_, _, user := hostKey(t, 2)
	b = Boot{User: "linux", Key: user, HostKey: host, Hostname: "box"}
	var err error
	b.Declared, err = ParseRules("# The console's password.\nf 0600 root:root /etc/issue.d/hint boot=yes secret=yes\nd 0755 root:root /etc/issue.d boot=yes\n" +
		"f 0644 root:root /etc/group boot=yes content=groups members=adm\n")
	require.NoError(t, err)
	before, after = &Listing{Contents: map[string][]byte{}}, &Listing{Contents: map[string][]byte{}}
	put := func(l *Listing, f File, text string) {
		f.SHA256, f.Size = sum(text), int64(len(text))
		l.put(f)
		l.Contents[f.Path] = []byte(text)
	}
	both := func(name string, mode uint32, text string) {
		put(before, regular(name, mode, text), text)
		put(after, regular(name, mode, text), text)
	}
	key := string(ssh.MarshalAuthorizedKey(user))
	home := File{Path: "/home/linux/.ssh/authorized_keys", Type: Regular, Mode: 0o600, UID: 1000, GID: 1000}
	both("/usr/bin/ls", 0o755, "ls")
	both("/etc/fstab", 0o644, "LABEL=root / ext4\n")
	both("/etc/skel/.bashrc", 0o644, "alias")
	both("/usr/lib/systemd/system/fstrim.timer", 0o644, "[Timer]\n")
	both("/etc/passwd", 0o644, bootPasswd)
	both("/etc/group", 0o644, "root:x:0:\nadm:x:4:\nshadow:x:42:\n")
	both("/var/cache/debconf/config.dat", 0o644, bootDebconf)
	both("/etc/hosts", 0o644, "127.0.0.1 localhost\n")
	put(after, regular("/etc/passwd", 0o644, ""), bootPasswd+"linux:x:1000:1000:User:/home/linux:/bin/bash\n")
	put(after, regular("/etc/group", 0o644, ""), "root:x:0:\nadm:x:4:linux\nshadow:x:42:\nlinux:x:1000:\n")
	put(after, regular("/etc/hosts", 0o644, ""), "# written\n127.0.1.1 box box\n127.0.0.1 localhost\n")
	put(after, regular("/var/cache/debconf/config.dat", 0o644, ""), strings.Replace(bootDebconf, "Value: ", "Value: /dev/vda", 1))
	put(after, regular("/etc/ssh/ssh_host_ed25519_key", 0o600, ""), private)
	put(after, regular("/etc/ssh/ssh_host_ed25519_key.pub", 0o644, ""), public)
	put(after, home, key)
	put(after, regular("/root/.ssh/authorized_keys", 0o600, ""), `no-port-forwarding,no-agent-forwarding,no-X11-forwarding,command="echo 'Please login as the user \"linux\" rather than the user \"root\".';echo;sleep 10;exit 142" `+key)
	put(after, regular("/etc/sudoers.d/90-cloud-init-users", 0o440, ""), "# Created by cloud-init v. 22 on X\n\n# User rules for linux\nlinux ALL=(ALL) NOPASSWD:ALL\n")
	put(after, regular("/etc/machine-id", 0o444, ""), strings.Repeat("0123456789abcdef", 2)+"\n")
	put(after, regular("/var/lib/systemd/timers/stamp-fstrim.timer", 0o644, ""), "")
	hint := regular("/etc/issue.d/hint", 0o600, "hint")
	hint.Holds = "text"
	put(after, hint, "hint")
	after.put(dirs("/etc/issue.d")[0])
	return b, before, after
}

func TestBoot(t *testing.T) {
	b, before, after := goodBoot(t)
	findings, err := b.Account(before, after)
	require.NoError(t, err)
	require.Empty(t, findings)
	b.User = "../x"
	_, err = b.Account(before, after)
	require.ErrorContains(t, err, "no plain name")
}

// TestSpoiledBoot spoils what the boot left in one way a row; exactly the named
// findings come of it.
func TestSpoiledBoot(t *testing.T) {
	_, otherPublic, _ := hostKey(t, 3)
	text := func(name string, change func(string) string) func(*Listing) {
		return func(l *Listing) { l.setText(name, change(string(l.Contents[name]))) }
	}
	add := func(name, more string) func(*Listing) {
		return text(name, func(s string) string { return s + more })
	}
	swap := func(name, from, to string) func(*Listing) {
		return text(name, func(s string) string { return strings.Replace(s, from, to, 1) })
	}
	plant := func(name string) func(*Listing) {
		return func(l *Listing) { l.put(regular(name, 0o644, "planted")) }
	}
	alter := func(name string, change func(*File)) func(*Listing) {
		return func(l *Listing) { l.alter(name, change) }
	}
	holds := func(name string, mode uint32, gid int) func(*Listing) {
		return func(l *Listing) {
			f := regular(name, mode, "ls")
			f.GID, f.Holds = gid, "base64"
			l.put(f)
		}
	}
	for name, row := range map[string]struct {
		spoil func(*Listing)
		want  string // kinds and paths
	}{
		"a planted file":             {plant("/etc/cron.d/x"), "unexplained /etc/cron.d/x"},
		"another key of the user":    {add("/home/linux/.ssh/authorized_keys", "ssh-ed25519 AAAA x\n"), "changed /home/linux/.ssh/authorized_keys"},
		"a key of root":              {add("/root/.ssh/authorized_keys", "ssh-ed25519 AAAA x\n"), "changed /root/.ssh/authorized_keys"},
		"root's key without command": {swap("/root/.ssh/authorized_keys", "command", "environment"), "changed /root/.ssh/authorized_keys"},
		"another sudo rule":          {add("/etc/sudoers.d/90-cloud-init-users", "x ALL=(ALL) ALL\n"), "changed /etc/sudoers.d/90-cloud-init-users"},
		"a second account":           {add("/etc/passwd", "x:x:1001:1001::/home/x:/bin/bash\n"), "changed /etc/passwd"},
		"another root":               {swap("/etc/passwd", "linux:x:1000", "linux:x:0"), "changed /etc/passwd\npermissions /home/linux/.ssh/authorized_keys"},
		"a changed account":          {swap("/etc/passwd", "/usr/sbin/nologin", "/bin/sh"), "changed /etc/passwd"},
		"an account that is gone":    {swap("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\n", ""), "changed /etc/passwd"},
		"a member of shadow":         {swap("/etc/group", "shadow:x:42:", "shadow:x:42:linux"), "changed /etc/group"},
		"a foreign member of adm":    {swap("/etc/group", "adm:x:4:linux", "adm:x:4:linux,x"), "changed /etc/group"},
		"a foreign name in hosts":    {add("/etc/hosts", "192.0.2.1 ntp01.example\n"), "changed /etc/hosts"},
		"a fixed machine-id":         {text("/etc/machine-id", func(string) string { return "none\n" }), "changed /etc/machine-id"},
		"half a host key":            {text("/etc/ssh/ssh_host_ed25519_key.pub", func(string) string { return otherPublic }), "changed /etc/ssh/ssh_host_ed25519_key\nchanged /etc/ssh/ssh_host_ed25519_key.pub"},
		"a host key that others read": {alter("/etc/ssh/ssh_host_ed25519_key", func(f *File) { f.Mode = 0o644 }),
			"permissions /etc/ssh/ssh_host_ed25519_key"},
		"an answer of another package": {swap("/var/cache/debconf/config.dat", "libc6/x\nValue: ", "libc6/x\nValue: y"), "changed /var/cache/debconf/config.dat"},
		"a changed program":            {alter("/usr/bin/ls", func(f *File) { f.SHA256 = sum("x") }), "changed /usr/bin/ls"},
		"a program too large to read":  {alter("/usr/bin/ls", func(f *File) { f.SHA256 = "" }), "changed /usr/bin/ls"},
		"a setuid program":             {alter("/usr/bin/ls", func(f *File) { f.Mode = 0o4755 }), "permissions /usr/bin/ls"},
		"an attribute":                 {alter("/usr/bin/ls", func(f *File) { f.Xattrs = map[string]string{"user.x": "y"} }), "permissions /usr/bin/ls"},
		"a second name":                {alter("/usr/bin/ls", func(f *File) { f.HardLink = "/etc/fstab" }), "changed /usr/bin/ls"},
		"a link in its place":          {func(l *Listing) { l.put(link("/usr/bin/ls", "/tmp/ls")) }, "changed /usr/bin/ls"},
		"a missing file":               {func(l *Listing) { l.drop("/etc/fstab") }, "missing /etc/fstab"},
		"a stamp of no timer":          {plant("/var/lib/systemd/timers/stamp-x.timer"), "changed /var/lib/systemd/timers/stamp-x.timer"},
		"a secret for everybody":       {holds("/usr/bin/ls", 0o755, 0), "leaked /usr/bin/ls"},
		"a secret for a group":         {holds("/etc/issue.d/hint", 0o640, 4), "leaked /etc/issue.d/hint\npermissions /etc/issue.d/hint"},
		"a secret that is kept":        {holds("/root/copy", 0o600, 0), "leaked /root/copy\nunexplained /root/copy"},
	} {
		t.Run(name, func(t *testing.T) {
			b, before, after := goodBoot(t)
			row.spoil(after)
			findings, err := b.Account(before, after)
			require.NoError(t, err)
			var got []string
			for _, f := range findings {
				got = append(got, string(f.Kind)+" "+quote(f.Path))
			}
			slices.Sort(got)
			require.Equal(t, row.want, strings.Join(got, "\n"))
		})
	}
}

// What a boot may write explains nothing on the image's disk.
func TestRulesOfBoot(t *testing.T) {
	d, l := goodDisk(t)
	rules, err := ParseRules("# Of the boot.\nf 0600 root:root /etc/issue.d/hint boot=yes\n")
	require.NoError(t, err)
	d.Declared = append(d.Declared, rules...)
	l.put(regular("/etc/issue.d/hint", 0o600, "hint"))
	findings, err := d.Account(l)
	require.NoError(t, err)
	require.Contains(t, findings, Finding{Unexplained, "/etc/issue.d/hint", "f 0600 0:0, 4 bytes"})
	rules, err = ParseRules(strings.ReplaceAll(bootRules, userMark, "linux"))
	require.NoError(t, err)
	b := &bootAccount{is: map[string][]byte{}, before: map[string]*File{}}
	for _, r := range rules {
		if value := r.Demands["content"]; value != "" {
			b.is[r.Pattern] = nil
			require.NotContains(t, b.content(&File{Path: r.Pattern, Size: 1}, &r, value), "cannot", "a rule's content that is not known")
			require.True(t, value == "empty" || value == "skel" || value == "timer" || value == "apparmor" || KeepBoot("/p1"+strings.ReplaceAll(r.Pattern, "*", "x")),
				"%s is not kept", r.Pattern)
		}
	}
}
