package ledger

import (
	_ "embed"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

// A Boot accounts for what the first boots of a machine wrote to its disk: how it
// differs from the image's.
type Boot struct {
	// Declared are the rules of the image's definition. Those that have boot=yes
	// come before the package's own.
	Declared []Rule
	User     string        // the login user; a plain name
	Key      ssh.PublicKey // the key that the machine was given for User
	HostKey  ssh.PublicKey // the key that the machine showed on its console
	Hostname string        // the name that it was given; if empty, its name must be the image's
}

// KeepBoot selects the contents that Boot needs of the disk after the boot, for
// ReadArchive. Of the disk before, it needs those of KeepDebian.
func KeepBoot(name string) bool {
	if KeepDebian(name) {
		return true
	}
	_, name, _ = strings.Cut(strings.TrimPrefix(name, "/"), "/")
	for _, pattern := range keptOfBoot {
		if ok, _ := path.Match(pattern, name); ok {
			return true
		}
	}
	return false
}

// keptOfBoot are small files. Rules about contents are about these.
var keptOfBoot = []string{
	"etc/hostname", "etc/hosts", "etc/machine-id", "etc/ssh/ssh_host_*_key", "etc/ssh/ssh_host_*_key.pub", "etc/sudoers.d/90-cloud-init-users",
	"etc/systemd/network/10-cloud-init-*.network", "root/.ssh/authorized_keys", "home/*/.ssh/authorized_keys",
	"var/lib/cloud/instances/*/*.i", "var/cache/debconf/config.dat-old", "var/cache/debconf/templates.dat-old",
}

// bootRules is what the first boots of a Debian with cloud-init write.
//
//go:embed boot.rules
var bootRules string

// userMark stands for the login user in bootRules.
const userMark = "@USER@"

// ofBoot parts rules in those about an image's disk and those about its boots.
func ofBoot(rules []Rule) (disk, boot []Rule) {
	for _, r := range rules {
		if r.Demands["boot"] == "" {
			disk = append(disk, r)
		} else {
			boot = append(boot, r)
		}
	}
	return disk, boot
}

// Account returns every difference between the image's disk and the disk after the
// boots that no rule explains, and every file that holds a secret where others than
// root can read it, sorted by path. Both listings are mounted, and ReadArchive has
// looked for the secrets in the second.
func (b Boot) Account(before, after *Listing) ([]Finding, error) {
	if b.User == "" || strings.ContainsAny(b.User, " \t\n/:*?[\\") {
		return nil, fmt.Errorf("cannot account for what a boot wrote: the login user %q is no plain name", b.User)
	}
	own, err := ParseRules(strings.ReplaceAll(bootRules, userMark, b.User))
	if err != nil {
		return nil, err
	}
	_, declared := ofBoot(b.Declared)
	a := &bootAccount{
		Boot: b, before: byPath(before), after: byPath(after), was: before.Contents, is: after.Contents, rules: slices.Concat(declared, own),
		users: ids(after.Contents["/etc/passwd"]), groups: ids(after.Contents["/etc/group"]),
	}
	for i := range after.Files {
		a.file(&after.Files[i])
		a.secret(&after.Files[i])
	}
	for i := range before.Files {
		if f := &before.Files[i]; a.after[f.Path] == nil && !a.mayGo(f) {
			a.find(Missing, f.Path, "the image has it")
		}
	}
	slices.SortFunc(a.findings, func(x, y Finding) int {
		return strings.Compare(x.Path+"\x00"+string(x.Kind), y.Path+"\x00"+string(y.Kind))
	})
	return a.findings, nil
}

type bootAccount struct {
	Boot
	before, after map[string]*File
	was, is       map[string][]byte
	rules         []Rule
	users, groups map[string]int
	findings      []Finding
}

func byPath(l *Listing) map[string]*File {
	m := map[string]*File{}
	for i := range l.Files {
		m[l.Files[i].Path] = &l.Files[i]
	}
	return m
}

func (a *bootAccount) find(kind Kind, name, detail string) {
	a.findings = append(a.findings, Finding{kind, name, detail})
}

// file judges one file of the disk after the boots.
func (a *bootAccount) file(f *File) {
	was := a.before[f.Path]
	kind, detail := difference(was, f)
	if kind == "" {
		return
	}
	ruled := false
	for i := range a.rules {
		r := &a.rules[i]
		if r.Type != f.Type || r.Demands["content"] == "absent" || !r.matches(f.Path) {
			continue
		}
		k, d := a.obeys(f, r)
		if k == "" {
			return
		}
		if !ruled { // the definition's rules come first
			kind, detail, ruled = k, d, true
		}
	}
	a.find(kind, f.Path, detail)
}

// difference says how a file is not the one that was there before; a nil one was not
// there.
func difference(was, f *File) (Kind, string) {
	switch {
	case was == nil:
		return Unexplained, describe(f)
	case was.Type != f.Type:
		return Changed, fmt.Sprintf("type %c, the image has %c", f.Type, was.Type)
	case f.Type == Regular && (f.SHA256 == "" || f.SHA256 != was.SHA256):
		return Changed, "another content than in the image"
	case f.Target != was.Target || f.Device != was.Device:
		return Changed, describe(f)
	case f.HardLink != was.HardLink:
		return Changed, "it is another file than " + quote(was.HardLink)
	case f.Mode != was.Mode || f.UID != was.UID || f.GID != was.GID:
		return Permissions, fmt.Sprintf("%04o %d:%d, the image has %04o %d:%d", f.Mode, f.UID, f.GID, was.Mode, was.UID, was.GID)
	case !maps.Equal(f.Xattrs, was.Xattrs):
		return Permissions, describe(f)
	}
	return "", ""
}

// mayGo reports whether a rule says that a boot removes a file of the image.
func (a *bootAccount) mayGo(f *File) bool {
	return slices.ContainsFunc(a.rules, func(r Rule) bool {
		return r.Demands["content"] == "absent" && r.Type == f.Type && r.matches(f.Path)
	})
}

// obeys holds a file to a rule that is for it.
func (a *bootAccount) obeys(f *File, r *Rule) (Kind, string) {
	if value, ok := r.Demands["content"]; ok {
		if detail := a.content(f, r, value); detail != "" {
			return Changed, detail
		}
	}
	if value, ok := r.Demands["target"]; ok && f.Target != value {
		if ok, err := path.Match(value, f.Target); err != nil || !ok {
			return Changed, "a link to " + quote(f.Target) + ", the rule says " + value
		}
	}
	if detail := r.permits(f, a.users, a.groups); detail != "" {
		return Permissions, detail
	}
	return "", ""
}

// secret finds where a secret stands: where others than root can read it, and where
// nobody says that root keeps it. A copy that outlives its purpose is in the next
// backup.
func (a *bootAccount) secret(f *File) {
	if f.Holds == "" {
		return
	}
	why := "which others than root can read"
	if a.rootOnly(f) {
		if slices.ContainsFunc(a.rules, func(r Rule) bool { return r.Demands["secret"] != "" && r.Type == f.Type && r.matches(f.Path) }) {
			return
		}
		why = "where no rule says that it is kept"
	}
	a.find(Leaked, f.Path, fmt.Sprintf("the console's password as %s, %s: %s", f.Holds, why, describe(f)))
}

// rootOnly reports whether only root can read a file: by its own mode, or by that of
// a directory on the way to it.
func (a *bootAccount) rootOnly(f *File) bool {
	closed := func(f *File, others, group uint32) bool {
		return f.UID == 0 && f.Mode&others == 0 && (f.GID == 0 || f.Mode&group == 0) && f.Xattrs["acl.access"] == ""
	}
	if f.Type == Regular && closed(f, 0o004, 0o040) {
		return true
	}
	for dir := path.Dir(f.Path); dir != "/" && dir != "."; dir = path.Dir(dir) {
		if d := a.after[dir]; d != nil && closed(d, 0o001, 0o010) {
			return true
		}
	}
	return false
}
