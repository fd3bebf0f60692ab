package ledger

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A Kind says what is wrong with a file.
type Kind string

// The kinds of findings.
const (
	Unexplained Kind = "unexplained" // neither a package nor a rule has it
	Changed     Kind = "changed"     // not what the package or the rule says
	Missing     Kind = "missing"     // a package or the image has it, the disk has not
	Permissions Kind = "permissions" // another mode, owner, capability or ACL
	Unsigned    Kind = "unsigned"    // a package that is in no signed index
	Leaked      Kind = "leaked"      // a secret that the boot made, where it does not belong
)

// A Finding is one thing that is wrong with a disk.
type Finding struct {
	Kind   Kind
	Path   string // of the file; for Unsigned the package
	Detail string
}

// String is one line; a hostile path is quoted.
func (f Finding) String() string {
	s := string(f.Kind) + " " + quote(f.Path)
	if f.Detail != "" {
		s += ": " + f.Detail
	}
	return s
}

// quote makes a path one word of printable ASCII, as it is where that is possible.
func quote(s string) string {
	q := strconv.QuoteToASCII(s)
	if q == `"`+s+`"` && s != "" && !strings.Contains(s, " ") {
		return s
	}
	return strings.ReplaceAll(q, " ", `\x20`)
}

// Debian accounts for the files of a disk with Debian on it.
type Debian struct {
	// Declared are the rules of the image's definition. They come before the
	// package's own rules, and before package content.
	Declared []Rule
	// Manifests are what is installed, as DebianArchive gives it for Packages.
	Manifests map[Package]*Manifest
}

// KeepDebian selects the contents that Debian needs, for ReadArchive.
func KeepDebian(name string) bool {
	_, name, _ = strings.Cut(strings.TrimPrefix(name, "/"), "/")
	for _, prefix := range []string{"var/lib/dpkg/alternatives/", "usr/share/ca-certificates/", "etc/ssl/certs/"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return slices.Contains([]string{"var/lib/dpkg/status", "var/lib/dpkg/diversions", "var/lib/dpkg/statoverride",
		"etc/subuid", "etc/subgid", "var/cache/debconf/config.dat", "var/cache/debconf/templates.dat",
		"etc/passwd", "etc/passwd-", "etc/group", "etc/group-", "etc/shadow", "etc/shadow-", "etc/gshadow", "etc/gshadow-", "etc/fstab"}, name)
}

// DebianPackages are the packages that are installed on a disk, by dpkg's own
// word.
func DebianPackages(l *Listing) ([]Package, error) {
	packages, err := debianPackages(l.Contents[dpkgDir+"/status"])
	if err != nil {
		return nil, fmt.Errorf("cannot read the disk's package database: %w", err)
	}
	return packages, nil
}

// Account returns everything on the disk that is not explained, sorted by path.
func (d Debian) Account(l *Listing) ([]Finding, error) {
	packages, err := DebianPackages(l)
	if err != nil {
		return nil, err
	}
	generated, err := ParseRules(debianRules)
	if err != nil {
		return nil, err
	}
	declared, _ := ofBoot(d.Declared)
	a := &account{
		listing: l, declared: len(declared), rules: slices.Concat(declared, generated), manifests: map[Package]*Manifest{},
		disk: map[string]*File{}, expected: map[string][]File{}, info: map[string]string{}, explained: map[string]bool{},
		users: ids(l.Contents["/etc/passwd"]), groups: ids(l.Contents["/etc/group"]),
	}
	for i := range l.Files {
		a.disk[l.Files[i].Path] = &l.Files[i]
	}
	for _, p := range packages {
		m, ok := d.Manifests[p]
		if !ok {
			a.find(Unsigned, p.String(), "no signed index has this version")
			continue
		}
		a.manifests[p] = m
	}
	a.divert(l.Contents[dpkgDir+"/diversions"])
	a.expect()
	for i := range l.Files {
		a.file(&l.Files[i])
	}
	a.ways()
	a.missing()
	slices.SortFunc(a.findings, func(x, y Finding) int {
		return strings.Compare(x.Path+"\x00"+string(x.Kind), y.Path+"\x00"+string(y.Kind))
	})
	return a.findings, nil
}

type account struct {
	listing       *Listing
	rules         []Rule
	manifests     map[Package]*Manifest
	disk          map[string]*File
	expected      map[string][]File // what packages say of a path
	info          map[string]string // digests of dpkg's info files, by path
	scripts       string
	diversions    []diversion
	users, groups map[string]int
	findings      []Finding
	explained     map[string]bool
	declared      int     // how many of the rules are the definition's
	doubtful      []*File // directories that nothing names
}

func (a *account) find(kind Kind, name, detail string) {
	a.findings = append(a.findings, Finding{kind, name, detail})
}

// ids reads names and numbers of passwd(5) or group(5).
func ids(text []byte) map[string]int {
	m := map[string]int{}
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) < 3 {
			continue
		}
		if n, err := strconv.Atoi(f[2]); err == nil && n != 0 {
			m[f[0]] = n
		}
	}
	return m
}

// A diversion makes all packages but one have a file at another path.
type diversion struct{ from, to, by string }

// divert reads dpkg's diversions. One that no package asks for is a finding:
// it would explain why a file is elsewhere.
func (a *account) divert(text []byte) {
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	for i := 0; i+2 < len(lines); i += 3 {
		v := diversion{lines[i], lines[i+1], lines[i+2]}
		asked := false
		for p, m := range a.manifests {
			asked = asked || p.Name == v.by && (strings.Contains(m.Scripts, v.from) || m.has(v.from))
		}
		if !asked {
			a.find(Unexplained, v.from, "a diversion that no installed package asks for")
			continue
		}
		a.diversions = append(a.diversions, v)
	}
}

func (m *Manifest) has(name string) bool {
	return slices.ContainsFunc(m.Files, func(f File) bool { return f.Path == name })
}

// merged are the directories that are links into /usr on a merged system.
var merged = []string{"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}

// canonical is where a package's path is on this disk.
func (a *account) canonical(name string) string {
	for _, dir := range merged {
		if name != dir && !strings.HasPrefix(name, dir+"/") {
			continue
		}
		if link, ok := a.disk[dir]; ok && link.Type == Symlink && link.Target == "usr"+dir {
			return "/usr" + name
		}
	}
	return name
}

// expect collects what the installed packages say.
func (a *account) expect() {
	var scripts strings.Builder
	for p, m := range a.manifests {
		scripts.WriteString(m.Scripts)
		for _, f := range m.Files {
			name := f.Path
			for _, v := range a.diversions {
				if v.from == name && v.by != p.Name {
					name = v.to
				}
			}
			f.Path = a.canonical(name)
			a.expected[f.Path] = append(a.expected[f.Path], f)
		}
		for name, sum := range m.Control {
			a.info[dpkgDir+"/info/"+p.Name+"."+name] = sum
			a.info[dpkgDir+"/info/"+p.Name+":"+p.Arch+"."+name] = sum
		}
		for _, name := range []string{p.Name, p.Name + ":" + p.Arch} {
			a.info[dpkgDir+"/info/"+name+".list"] = ""
		}
	}
	a.scripts = scripts.String()
}

// file judges one file of the disk.
func (a *account) file(f *File) {
	var why []Finding
	packaged := len(a.expected[f.Path]) > 0
	for i := range a.rules {
		r := &a.rules[i]
		if r.Type != f.Type || !r.matches(f.Path) || packaged && i >= a.declared && !r.aboutPackage() {
			continue
		}
		kind, detail := a.obeys(f, r)
		if kind == "" {
			a.explained[f.Path] = true
			return
		}
		why = append(why, Finding{kind, f.Path, detail})
	}
	if wanted := a.expected[f.Path]; len(wanted) > 0 {
		kind, detail := asPackaged(f, wanted)
		a.explained[f.Path] = true
		if kind == "" {
			return
		}
		if len(why) > 0 { // a rule says more of it than its package
			kind, detail = why[0].Kind, why[0].Detail
		}
		a.find(kind, f.Path, detail)
		return
	}
	switch {
	case len(why) > 0:
		a.explained[f.Path] = true
		a.findings = append(a.findings, why[0])
	case f.Type == Directory:
		a.doubtful = append(a.doubtful, f)
	default:
		a.find(Unexplained, f.Path, describe(f))
	}
}

// describe says what an unexplained file is.
func describe(f *File) string {
	s := fmt.Sprintf("%c %04o %d:%d", f.Type, f.Mode, f.UID, f.GID)
	switch f.Type {
	case Regular:
		s += fmt.Sprintf(", %d bytes", f.Size)
	case Symlink:
		s += ", to " + quote(f.Target)
	case CharDev, BlockDev:
		s += ", device " + f.Device
	}
	for _, name := range slices.Sorted(maps.Keys(f.Xattrs)) {
		s += ", has " + quote(name)
	}
	return s
}

// asPackaged compares a file with what packages say of its path; several may
// have a directory, and one of them has to agree.
func asPackaged(f *File, wanted []File) (Kind, string) {
	var kind Kind
	var detail string
	for i, w := range wanted {
		k, d := differs(f, &w)
		if k == "" {
			return "", ""
		}
		if i == 0 || k == Permissions {
			kind, detail = k, d
		}
	}
	return kind, detail
}

func differs(f, want *File) (Kind, string) {
	switch {
	case f.Type != want.Type:
		return Changed, fmt.Sprintf("type %c, its package has %c", f.Type, want.Type)
	case f.Type == Regular && f.SHA256 != want.SHA256:
		return Changed, "another content than its package has"
	case f.Type == Symlink && f.Target != want.Target:
		return Changed, fmt.Sprintf("link to %s, its package has %s", quote(f.Target), quote(want.Target))
	}
	if f.UID != want.UID || f.GID != want.GID || f.Type != Symlink && f.Mode != want.Mode {
		return Permissions, fmt.Sprintf("%04o %d:%d, its package has %04o %d:%d", f.Mode, f.UID, f.GID, want.Mode, want.UID, want.GID)
	}
	if len(f.Xattrs) > 0 {
		return Permissions, describe(f)
	}
	return "", ""
}

// ways explains the directories that nothing names but that lead to what is
// explained, if they are root's and writable by root only.
func (a *account) ways() {
	leads := map[string]bool{}
	for name := range a.explained {
		for dir := path.Dir(name); dir != "/" && dir != "." && !leads[dir]; dir = path.Dir(dir) {
			leads[dir] = true
		}
	}
	for _, f := range a.doubtful {
		switch {
		case !leads[f.Path]:
			a.find(Unexplained, f.Path, describe(f))
		case f.Mode != 0o755 || f.UID != 0 || f.GID != 0 || len(f.Xattrs) > 0:
			a.find(Permissions, f.Path, describe(f))
		}
	}
}

// missing finds what packages or the image's declaration have and the disk has not.
func (a *account) missing() {
	for _, r := range a.rules[:a.declared] {
		if _, ok := a.disk[r.Pattern]; !ok && r.exact() && len(a.expected[r.Pattern]) == 0 {
			a.find(Missing, r.Pattern, "it is declared")
		}
	}
	for name, wanted := range a.expected {
		if _, ok := a.disk[name]; !ok && !a.gone(name, wanted) {
			a.find(Missing, name, "its package has it")
		}
	}
}

// gone reports whether a rule says that a package's file is absent.
func (a *account) gone(name string, wanted []File) bool {
	return slices.ContainsFunc(a.rules, func(r Rule) bool {
		return r.Demands["content"] == "absent" && r.Type == wanted[0].Type && r.matches(name)
	})
}

// obeys holds a file to a rule that is for it.
func (a *account) obeys(f *File, r *Rule) (Kind, string) {
	for _, key := range []string{"content", "target", "device", "alternative", "unit"} {
		if value, ok := r.Demands[key]; ok {
			if detail := a.demand(f, key, value); detail != "" {
				return Changed, detail
			}
		}
	}
	if detail := r.permits(f, a.users, a.groups); detail != "" {
		return Permissions, detail
	}
	return "", ""
}

// permits returns what is wrong with a file's mode, owner and attributes, or "".
func (r *Rule) permits(f *File, users, groups map[string]int) string {
	if r.Mode != anyMode && f.Type != Symlink && f.Mode != r.Mode || !same(r.User, f.UID, users) || !same(r.Group, f.GID, groups) {
		return fmt.Sprintf("%04o %d:%d, the rule says %04o %s:%s", f.Mode, f.UID, f.GID, r.Mode, r.User, r.Group)
	}
	return attributes(f, r)
}

// same compares an owner with a rule's; root is 0 whatever the disk says.
func same(name string, id int, names map[string]int) bool {
	if name == "*" {
		return true
	}
	if name == "root" {
		return id == 0
	}
	if n, err := strconv.Atoi(name); err == nil {
		return id == n
	}
	n, ok := names[name]
	return ok && id == n
}

// attributes compares extended attributes with what a rule grants.
func attributes(f *File, r *Rule) string {
	for name, value := range f.Xattrs {
		ok := name == r.Demands["attribute"] && strings.HasPrefix(name, "user.")
		switch name {
		case "security.capability":
			ok = r.Demands["capability"] == hex.EncodeToString([]byte(value))
		case "acl.access", "acl.default":
			ok = r.Demands["acl"] == strings.Join(strings.Fields(value), ",")
		}
		if !ok {
			return describe(f)
		}
	}
	return ""
}

// demand holds a file to one demand and returns what is wrong.
func (a *account) demand(f *File, key, value string) string {
	own := func(s string) string { return strings.ReplaceAll(s, "*", path.Base(f.Path)) }
	switch key {
	case "content":
		return a.content(f, own(value))
	case "target":
		switch {
		case value == "package":
			if !a.packaged(resolve(f)) {
				return "a link to " + quote(f.Target) + ", which no package has"
			}
		case f.Target != own(value):
			return "a link to " + quote(f.Target) + ", the rule says " + own(value)
		}
	case "device":
		if f.Device != value {
			return "device " + f.Device + ", the rule says " + value
		}
	case "alternative":
		return a.alternative(f)
	case "unit":
		return a.unit(f)
	}
	return ""
}

// resolve is the path that a link names.
func resolve(f *File) string {
	if path.IsAbs(f.Target) {
		return path.Clean(f.Target)
	}
	return path.Join(path.Dir(f.Path), f.Target)
}

// packaged reports whether a path is a package's file, unmodified, or leads to
// one by links of packages.
func (a *account) packaged(name string) bool {
	for range 8 {
		name = a.canonical(name)
		f, ok := a.disk[name]
		if !ok || len(a.expected[name]) == 0 {
			return false
		}
		if kind, _ := asPackaged(f, a.expected[name]); kind == Changed {
			return false
		}
		if f.Type != Symlink {
			return true
		}
		name = resolve(f)
	}
	return false
}

func (a *account) content(f *File, value string) string {
	switch value {
	case "absent":
		return "a file that the rule says is not there"
	case "empty":
		if f.Size != 0 {
			return "it is not empty"
		}
	case "package":
		if kind, detail := asPackaged(f, a.expected[f.Path]); kind == Changed || len(a.expected[f.Path]) == 0 {
			return "not a package's content " + detail
		}
	case "control":
		if sum, ok := a.info[f.Path]; !ok || sum != f.SHA256 {
			return "not what an installed package has"
		}
	case "list":
		if _, ok := a.info[f.Path]; !ok {
			return "of no installed package"
		}
	case "pyc":
		dir, base := path.Split(f.Path)
		name, _, _ := strings.Cut(base, ".cpython-")
		if !a.packaged(path.Join(path.Dir(path.Clean(dir)), name+".py")) {
			return "its source is no package's"
		}
	case "certificates":
		return a.certificates(f)
	case "accounts":
		return a.accounts(a.listing.Contents[f.Path])
	case "locked":
		return locked(a.listing.Contents[f.Path])
	case "memberless":
		return memberless(a.listing.Contents[f.Path])
	default:
		if path.IsAbs(value) {
			if w := a.expected[a.canonical(value)]; len(w) == 0 || w[0].SHA256 != f.SHA256 {
				return "another content than " + value + " has in its package"
			}
		} else if f.SHA256 != value {
			return "another content than the rule says"
		}
	}
	return ""
}

// certificates allows a bundle only what packages have.
func (a *account) certificates(f *File) string {
	const begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
	var known [][]byte
	for name, data := range a.listing.Contents {
		if strings.HasPrefix(name, "/usr/share/ca-certificates/") && a.packaged(name) {
			known = append(known, bytes.TrimSpace(data))
		}
	}
	for rest := a.listing.Contents[f.Path]; len(bytes.TrimSpace(rest)) > 0; {
		rest = bytes.TrimSpace(rest)
		stop := bytes.Index(rest, []byte(end))
		if !bytes.HasPrefix(rest, []byte(begin)) || stop < 0 {
			return "something beside certificates"
		}
		one := rest[:stop+len(end)]
		if !slices.ContainsFunc(known, func(k []byte) bool { return bytes.Equal(k, one) }) {
			return "a certificate that no package has"
		}
		rest = rest[stop+len(end):]
	}
	return ""
}

// alternative explains a link that update-alternatives made: it leads, over
// /etc/alternatives, to a package's file, and a package's script names it.
func (a *account) alternative(f *File) string {
	const dir = "/etc/alternatives/"
	name, chosen := path.Base(f.Path), f
	if !strings.HasPrefix(f.Path, dir) {
		if !strings.HasPrefix(f.Target, dir) {
			return "a link to " + quote(f.Target)
		}
		name = strings.TrimPrefix(f.Target, dir)
		chosen = a.disk[f.Target]
		if !a.mentioned(f.Path) && !a.mentioned(" "+strings.TrimPrefix(f.Path, "/usr")+" ") {
			return "no package's script asks for this link"
		}
	}
	switch {
	case chosen == nil || chosen.Type != Symlink || !a.packaged(resolve(chosen)):
		return "it leads to no package's file"
	case !a.mentioned(name):
		return "no package's script asks for this alternative"
	}
	return ""
}

// mentioned reports whether an installed package's script has a word.
func (a *account) mentioned(name string) bool { return strings.Contains(a.scripts, name) }

// unit explains a link that enables a unit: of a package, whose own scripts
// enable it, in its own name or another that no other unit has.
func (a *account) unit(f *File) string {
	if !a.packaged(resolve(f)) {
		return "a link to " + quote(f.Target) + ", which is no package's unit"
	}
	name, unit := path.Base(f.Path), path.Base(f.Target)
	for _, dir := range []string{"/usr/lib/systemd/system/", "/usr/lib/systemd/user/"} {
		if _, other := a.disk[dir+name]; other && name != unit {
			return "it stands in for another unit"
		}
	}
	for _, n := range []string{name, unit} {
		if enables, err := regexp.MatchString(`\benable '?`+regexp.QuoteMeta(n)+`'?(\s|$)`, a.scripts); err == nil && enables {
			return ""
		}
	}
	return "no package's script enables " + quote(unit)
}

// accounts allows passwd(5) root and users that nobody can log in as, with
// numbers of the system's own range.
func (a *account) accounts(text []byte) string {
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(f) != 7 {
			return "a line that is no account"
		}
		id, err := strconv.Atoi(f[2])
		shell := f[6]
		switch {
		case f[1] != "x" || err != nil:
			return "the account " + quote(f[0]) + " has its password here, or no number"
		case f[0] == "root":
			if id != 0 || f[5] != "/root" || shell != "/bin/bash" {
				return "root is not as its package has it"
			}
		case f[0] == "sync" && id == 4 && shell == "/bin/sync":
		case id < 1 || id > 999 && id != 65534 || shell != "/usr/sbin/nologin" && shell != "/bin/false":
			return "the account " + quote(f[0]) + " can log in, or is not the system's"
		}
	}
	return ""
}

// locked allows shadow(5) and gshadow(5) no password.
func locked(text []byte) string {
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(f) < 2 || f[1] != "*" && f[1] != "!" && f[1] != "!*" && f[1] != "!!" {
			return "an account that is not locked: " + quote(f[0])
		}
	}
	return ""
}

// memberless allows group(5) no members.
func memberless(text []byte) string {
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(f) != 4 || f[3] != "" || f[2] == "0" && f[0] != "root" {
			return "a group with members, or another group of root's: " + quote(f[0])
		}
	}
	return ""
}
