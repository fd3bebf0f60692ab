package ledger

import (
	_ "embed"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

// liveRules are what boots make, and the powers that packages give their files.
//
//go:embed live.rules
var liveRules string

// liveFact is the fact that the checks of files need, which Gather reads.
const liveFact = "files"

const refGeneric = "OTC image factory introduction: generic quality requirements"

// areas divide a machine's files among the checks of LiveChecks: the first that has
// a prefix of a path has the file, and othersCheck what is left.
var areas = []struct {
	check    string
	prefixes []string
}{
	{"files.access", []string{
		"/etc/pam.d", "/etc/pam.conf", "/etc/security", "/etc/sudoers", "/etc/sudo.conf", "/etc/sudo_logsrvd.conf", "/etc/polkit-1", "/usr/share/polkit-1",
		"/run/polkit-1", "/var/lib/polkit-1", "/etc/login.defs", "/etc/securetty", "/etc/nologin", "/etc/nsswitch.conf", "/etc/doas.conf", "/etc/ssh",
		"/etc/hosts.equiv", "/etc/shosts.equiv", "/etc/hosts.allow", "/etc/hosts.deny", "/etc/shells", "/etc/environment", "/etc/skel", "/etc/adduser.conf", "/etc/deluser.conf",
		"/etc/default/useradd", "/etc/default/locale", "/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow", "/etc/subuid", "/etc/subgid",
		"/root", "/home", "/usr/lib/pam.d", "/usr/lib/x86_64-linux-gnu/security", "/usr/share/pam", "/usr/share/pam-configs", "/var/lib/systemd/linger", "/etc/krb5", "/etc/sssd", "/etc/ldap", "/etc/libnss", "/etc/nslcd.conf",
	}},
	{"files.startup", []string{
		"/etc/systemd", "/usr/lib/systemd", "/run/systemd", "/usr/local/lib/systemd", "/etc/cron", "/etc/crontab", "/etc/anacrontab", "/etc/at.", "/var/spool/cron",
		"/etc/udev", "/usr/lib/udev", "/run/udev", "/etc/profile", "/etc/bash", "/etc/zsh", "/etc/csh", "/etc/rc", "/etc/init", "/etc/ld.so", "/etc/modules", "/etc/modprobe.d",
		"/usr/lib/modprobe.d", "/usr/lib/modules-load.d", "/run/modules-load.d", "/etc/sysusers.d", "/usr/lib/sysusers.d", "/etc/tmpfiles.d", "/usr/lib/tmpfiles.d", "/run/tmpfiles.d",
		"/etc/environment.d", "/usr/lib/environment.d", "/etc/default", "/etc/apt/apt.conf", "/etc/dpkg", "/etc/network", "/etc/NetworkManager", "/etc/dhcp", "/etc/dhcpcd", "/etc/networkd-dispatcher",
		"/usr/lib/networkd-dispatcher", "/etc/ppp", "/etc/cloud", "/usr/lib/cloud-init", "/var/lib/cloud/scripts", "/var/lib/cloud/handlers", "/etc/initramfs-tools", "/usr/share/initramfs-tools", "/etc/kernel", "/usr/lib/kernel",
		"/etc/update-motd.d", "/etc/motd", "/etc/issue", "/etc/logrotate", "/etc/binfmt.d", "/usr/lib/binfmt.d", "/run/binfmt.d", "/etc/sysctl", "/usr/lib/sysctl.d", "/run/sysctl.d", "/etc/runit", "/etc/sv", "/etc/inittab",
		"/etc/xdg/autostart", "/etc/dbus-1", "/usr/share/dbus-1", "/etc/needrestart", "/etc/grub.d", "/etc/acpi", "/etc/rsyslog", "/etc/inetd.conf", "/etc/xinetd", "/etc/fstab", "/usr/lib/python3", "/usr/local/lib/python3", "/usr/lib/apt",
		"/etc/perl", "/etc/inputrc", "/usr/share/bash-completion", "/etc/bash_completion",
	}},
}

const othersCheck = "files.others"

// areaOf is the check that judges a path.
func areaOf(name string) string {
	for _, a := range areas {
		for _, prefix := range a.prefixes {
			if strings.HasPrefix(name, prefix) {
				return a.check
			}
		}
	}
	return othersCheck
}

// LiveChecks hold the files of a running machine to what its package manager
// knows of them, Params.Declared, and the rules of what packages and boots make.
// The first fact that each needs is "files", "units" or "running". The machine's own tools and package database are
// believed: Checks, which read the disk, believe neither.
func LiveChecks() []testsuite.Check {
	checks := []testsuite.Check{
		{
			ID: "files.access", Severity: testsuite.Critical,
			Title: "what decides who gets in (PAM, sudo, polkit, sshd, homes) is a package's, declared, or made by the first boot",
			Why:   "A line in one of these files lets somebody in, or makes somebody root.",
		},
		{
			ID: "files.startup", Severity: testsuite.Critical,
			Title: "what starts by itself (units, generators, jobs, hooks, rules, profiles) is a package's, declared, or made by the first boot",
			Why:   "What starts by itself comes back after every repair.",
		},
		{
			ID: othersCheck, Severity: testsuite.High,
			Title: "no other file below /etc, /usr, /boot, /opt and /srv, and no program anywhere, is changed, missing or nobody's",
			Why:   "A program that is not what its maintainers wrote does what somebody else wants.",
		},
		{
			ID: "files.powers", Severity: testsuite.Critical,
			Title: "set-user-ID and set-group-ID programs, capabilities, writable places and owners are those of the distribution's table",
			Why:   "A program with root's powers, or a file that everybody writes, opens the machine to its users.",
		},
	}
	for i := range checks {
		c := &checks[i]
		c.Group, c.Needs, c.References = "files", []string{liveFact, "os-release"}, []string{refGeneric}
		c.Judge = func(f testsuite.Facts, p testsuite.Params) testsuite.Verdict { return judgeLive(c.ID, f, p) }
	}
	return append(checks, runningChecks()...)
}

func judgeLive(id string, f testsuite.Facts, p testsuite.Params) testsuite.Verdict {
	text, err := f.Text(liveFact)
	if err != nil {
		return testsuite.Verdict{Status: testsuite.Error, Reason: err.Error()}
	}
	release, _ := f.Text("os-release")
	if !slices.Contains(strings.Fields(release), "ID=debian") {
		return testsuite.Verdict{Status: testsuite.Skipped, Reason: "only Debian's files are compared on a running machine"}
	}
	l, err := readLive(text)
	if err != nil {
		return testsuite.Verdict{Status: testsuite.Error, Reason: err.Error()}
	}
	rules, err := ParseRules(p.Declared + "\n" + liveRules + "\n" + debianRules)
	if err != nil {
		return testsuite.Verdict{Status: testsuite.Error, Reason: fmt.Sprintf("the declared files: %v", err)}
	}
	var found []string
	leads := map[string]bool{} // directories with something explained in them
	for _, line := range slices.Backward(l.lines) {
		kind, detail := l.judge(line, rules)
		if kind == "" {
			leads[path.Dir(line.Path)] = true
		}
		if kind == Unexplained && line.usualDirectory() && leads[line.Path] {
			kind, leads[path.Dir(line.Path)] = "", true
		}
		check := areaOf(line.Path)
		if kind == Permissions {
			check = "files.powers"
		}
		if kind == "" || check != id {
			continue
		}
		found = append(found, Finding{kind, line.Path, detail}.String())
	}
	return findings(found, fmt.Sprintf("none of %d that are not plainly a package's", len(l.lines)))
}

// live is what a running machine says of its files.
type live struct {
	lines        []liveLine
	enables      map[string]bool // units that packages' scripts enable
	asked        map[string]bool // alternatives that packages' scripts ask for
	certificates string
}

type liveLine struct {
	kind string // unowned, changed, missing, special
	File
	user, group string
	digest      string   // SHA-256 in hexadecimal; "-" where it was not read
	copies      []string // packages' files with the same content
	toPackage   bool     // a link to a package's file
	capability  string
}

// usualDirectory reports whether it is a directory that only root writes.
func (f liveLine) usualDirectory() bool {
	return f.Type == Directory && f.Mode == 0o755 && f.user == "root" && f.group == "root"
}

// readLive reads the fact, whose form stands with the script.
func readLive(text string) (*live, error) {
	l := &live{enables: map[string]bool{}, asked: map[string]bool{}}
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		switch {
		case len(f) == 2 && f[0] == "enables":
			l.enables[f[1]] = true
		case len(f) == 2 && f[0] == "asked":
			l.asked[f[1]] = true
		case len(f) == 2 && f[0] == "certificates":
			l.certificates = f[1]
		case len(f) == 10 && len(f[1]) == 1:
			mode, err := strconv.ParseUint(f[2], 8, 12)
			if err != nil && f[2] != "-" {
				return nil, fmt.Errorf("cannot understand the mode %.20q of a file", f[2])
			}
			one := liveLine{kind: f[0], user: f[3], group: f[4], digest: f[6]}
			one.File = File{Path: f[8], Type: f[1][0], Mode: uint32(mode), Target: f[9]}
			if one.Target == "-" {
				one.Target = ""
			}
			for note := range strings.SplitSeq(f[7], ",") {
				key, value, _ := strings.Cut(note, "=")
				switch {
				case note == "package":
					one.toPackage = true
				case key == "capability":
					one.capability = value
				case key == "copy":
					one.copies = append(one.copies, value)
				case strings.HasPrefix(note, "/"):
					one.copies = append(one.copies, note)
				}
			}
			l.lines = append(l.lines, one)
		case strings.TrimSpace(line) != "":
			return nil, fmt.Errorf("cannot understand %.80q", line)
		}
	}
	slices.SortFunc(l.lines, func(a, b liveLine) int { return strings.Compare(a.Path, b.Path) })
	if len(l.lines) == 0 {
		return nil, fmt.Errorf("no file is shown, which cannot be")
	}
	return l, nil
}

// judge holds one file to the rules, and to nothing where its package says all.
func (l *live) judge(f liveLine, rules []Rule) (Kind, string) {
	if f.kind == "missing" {
		for _, r := range rules {
			if r.Demands["content"] == "absent" && r.matches(f.Path) {
				return "", ""
			}
		}
		return Missing, "its package has it"
	}
	var kind Kind
	var detail string
	for _, r := range rules {
		if r.Type != f.Type || !r.matches(f.Path) || f.kind != "unowned" && !r.aboutPackage() {
			continue
		}
		if f.kind == "changed" && r.Demands["content"] == "package" {
			continue
		}
		k, d := l.obeys(f, &r)
		if k == "" {
			return "", ""
		}
		if kind == "" {
			kind, detail = k, d
		}
	}
	if kind != "" {
		return kind, detail
	}
	what := fmt.Sprintf("%c %04o %s:%s", f.Type, f.Mode, f.user, f.group)
	if f.Target != "" {
		what += ", to " + quote(f.Target)
	}
	if f.capability != "" {
		what += ", " + f.capability
	}
	switch {
	case f.kind == "changed":
		return Changed, "another content than its package has"
	case f.kind == "special" && f.Type == Symlink:
		return Changed, "a link to " + quote(f.Target) + ", which no package has"
	case f.kind == "special", f.Mode&0o6000 != 0 && f.Type == Regular, f.capability != "", f.Mode&0o1002 == 0o002 && f.Type != Symlink:
		return Permissions, what
	}
	return Unexplained, what
}

// netRaw is the capability of ping, as the file system keeps it.
const netRaw = "0100000200200000000000000000000000000000"

// obeys holds a file to a rule that is for it.
func (l *live) obeys(f liveLine, r *Rule) (Kind, string) {
	own := func(s string) string { return strings.ReplaceAll(s, "*", path.Base(f.Path)) }
	if value, ok := r.Demands["content"]; ok && !l.content(f, own(value)) {
		return Changed, "another content than the rule says"
	}
	if value, ok := r.Demands["target"]; ok && (value == "package" && !f.toPackage || value != "package" && f.Target != own(value)) {
		return Changed, "a link to " + quote(f.Target) + ", the rule says " + own(value)
	}
	if r.Demands["alternative"] != "" {
		name := path.Base(f.Path)
		if !strings.HasPrefix(f.Path, "/etc/alternatives/") {
			name = strings.TrimPrefix(f.Target, "/etc/alternatives/")
		} else if !f.toPackage {
			return Changed, "a link to " + quote(f.Target) + ", which no package has"
		}
		if !l.asked[name] {
			return Changed, "no package's script asks for this alternative"
		}
	}
	if r.Demands["unit"] != "" {
		if !f.toPackage {
			return Changed, "a link to " + quote(f.Target) + ", which is no package's unit"
		}
		if !l.enables[path.Base(f.Path)] && !l.enables[path.Base(f.Target)] {
			return Changed, "no package's script enables " + quote(path.Base(f.Target))
		}
	}
	if r.Mode != anyMode && f.Type != Symlink && f.Mode != r.Mode || r.User != "*" && r.User != f.user || r.Group != "*" && r.Group != f.group {
		return Permissions, fmt.Sprintf("%04o %s:%s, the rule says %04o %s:%s", f.Mode, f.user, f.group, r.Mode, r.User, r.Group)
	}
	if f.capability != "" && (f.capability != "cap_net_raw=ep" || r.Demands["capability"] != netRaw) {
		return Permissions, "has " + quote(f.capability)
	}
	return "", ""
}

// emptyDigest is that of nothing.
const emptyDigest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func (l *live) content(f liveLine, value string) bool {
	switch value {
	case "absent", "pyc":
		return false
	case "package":
		return f.kind == "special"
	case "empty":
		return f.digest == emptyDigest
	case "certificates":
		return l.certificates == "packages"
	case "accounts", "locked", "memberless", "control", "list": // judged by others
		return true
	}
	if path.IsAbs(value) {
		return slices.Contains(f.copies, value) || slices.Contains(f.copies, "/usr"+value)
	}
	return f.digest == value
}
