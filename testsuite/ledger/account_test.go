package ledger

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func sum(text string) string {
	h := sha256.Sum256([]byte(text))
	return hex.EncodeToString(h[:])
}

func regular(name string, mode uint32, text string) File {
	return File{Path: name, Type: Regular, Mode: mode, Size: int64(len(text)), SHA256: sum(text)}
}

func dirs(names ...string) []File {
	var files []File
	for _, n := range names {
		files = append(files, File{Path: n, Type: Directory, Mode: 0o755})
	}
	return files
}

func link(name, target string) File {
	return File{Path: name, Type: Symlink, Mode: 0o777, Target: target}
}

const declaredRules = `# The definition's own.
f 0644 root:root /etc/ssh/sshd_config.d/60-otc.conf
l * root:root /etc/systemd/system/apt-daily.timer target=/dev/null
`

// goodDisk is a small Debian and the packages that it consists of.
func goodDisk(t testing.TB) (Debian, *Listing) {
	t.Helper()
	certificate := "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n"
	packages := map[string]*Manifest{
		"base-files": {Files: slices.Concat(dirs("/", "/bin", "/sbin", "/lib", "/etc", "/usr", "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/share", "/var", "/var/lib", "/boot", "/root", "/usr/share/man", "/usr/share/man/man1"),
			[]File{regular("/usr/share/base-files/profile", 0o644, "umask 022\n")})},
		"passwd": {Files: []File{{Path: "/usr/bin/passwd", Type: Regular, Mode: 0o4755, Size: 6, SHA256: sum("passwd")}}},
		"dash": {Files: []File{link("/bin/sh", "dash"), regular("/bin/dash", 0o755, "dash")},
			Scripts: "dpkg-divert --package dash --add /bin/sh\n"},
		"coreutils":     {Files: []File{regular("/bin/ls", 0o755, "ls"), regular("/usr/bin/ss", 0o755, "ss")}},
		"vim-tiny":      {Files: []File{regular("/usr/bin/vim.tiny", 0o755, "vim")}, Scripts: "update-alternatives --install /usr/bin/vi vi /usr/bin/vim.tiny 15\n"},
		"iputils-ping":  {Files: []File{regular("/bin/ping", 0o755, "ping")}},
		"chrony":        {Files: slices.Concat(dirs("/lib/systemd/system"), []File{regular("/lib/systemd/system/chrony.service", 0o644, "unit")}), Scripts: "deb-systemd-helper enable 'chrony.service' >/dev/null\n"},
		"systemd":       {Files: []File{regular("/lib/systemd/system/debug-shell.service", 0o644, "shell"), regular("/lib/systemd/system/apt-daily.timer", 0o644, "timer")}},
		"sudo":          {Files: slices.Concat(dirs("/etc/sudoers.d"), []File{regular("/etc/sudoers", 0o644, "root ALL\n")})},
		"python3-cloud": {Files: slices.Concat(dirs("/usr/lib/python3", "/usr/lib/python3/dist-packages"), []File{regular("/usr/lib/python3/dist-packages/cloud.py", 0o644, "py")}), Control: map[string]string{"postinst": sum("postinst")}},
		"ca":            {Files: slices.Concat(dirs("/usr/share/ca-certificates"), []File{regular("/usr/share/ca-certificates/good.crt", 0o644, certificate)})},
		"libc6":         {Files: []File{regular("/lib/libc.so.6", 0o755, "libc")}},
	}
	d := Debian{Manifests: map[Package]*Manifest{}}
	var status strings.Builder
	l := &Listing{Contents: map[string][]byte{}}
	byPath := map[string]File{}
	for _, name := range slices.Sorted(maps.Keys(packages)) {
		m := packages[name]
		if m.Control == nil {
			m.Control = map[string]string{}
		}
		d.Manifests[Package{name, "1-1", "amd64"}] = m
		status.WriteString("Package: " + name + "\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1-1\n\n")
		for _, f := range m.Files {
			for _, dir := range merged {
				if strings.HasPrefix(f.Path, dir+"/") {
					f.Path = "/usr" + f.Path
				}
			}
			byPath[f.Path] = f
		}
	}
	for _, name := range []string{"/bin", "/sbin", "/lib"} {
		byPath[name] = link(name, "usr"+name)
	}
	content := func(name string, mode uint32, text string) {
		f := regular(name, mode, text)
		byPath[name], l.Contents[name] = f, []byte(text)
	}
	content("/var/lib/dpkg/status", 0o644, status.String())
	content("/var/lib/dpkg/diversions", 0o644, "/bin/sh\n/bin/sh.distrib\ndash\n")
	content("/etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/bash\nsshd:x:102:65534::/run/sshd:/usr/sbin/nologin\n")
	content("/etc/group", 0o644, "root:x:0:\nshadow:x:42:\n")
	content("/etc/shadow", 0o640, "root:*:20782:0:99999:7:::\nsshd:!:20782::::::\n")
	shadow := byPath["/etc/shadow"]
	shadow.GID = 42
	byPath["/etc/shadow"] = shadow
	content("/usr/share/ca-certificates/good.crt", 0o644, certificate)
	content("/etc/ssl/certs/ca-certificates.crt", 0o644, certificate)
	for _, f := range slices.Concat(
		dirs("/etc/ssl", "/etc/ssl/certs", "/etc/alternatives", "/etc/systemd", "/etc/systemd/system", "/etc/systemd/system/multi-user.target.wants",
			"/var/lib/dpkg", "/var/lib/dpkg/info", "/etc/ssh", "/etc/ssh/sshd_config.d", "/usr/local", "/usr/local/bin", "/usr/lib/python3/dist-packages/__pycache__"),
		[]File{
			link("/etc/alternatives/vi", "/usr/bin/vim.tiny"), link("/usr/bin/vi", "/etc/alternatives/vi"),
			link("/etc/systemd/system/multi-user.target.wants/chrony.service", "/lib/systemd/system/chrony.service"),
			link("/etc/systemd/system/apt-daily.timer", "/dev/null"),
			regular("/etc/ssh/sshd_config.d/60-otc.conf", 0o644, "PermitRootLogin no\n"),
			regular("/etc/profile", 0o644, "umask 022\n"),
			regular("/etc/sudoers", 0o440, "root ALL\n"),
			regular("/usr/lib/python3/dist-packages/__pycache__/cloud.cpython-311.pyc", 0o644, "pyc"),
			regular("/var/lib/dpkg/info/python3-cloud.postinst", 0o755, "postinst"),
			regular("/var/lib/dpkg/info/python3-cloud.list", 0o644, "/."),
			regular("/etc/machine-id", 0o444, ""),
			regular("/boot/initrd.img-6.1.0", 0o644, "initrd"),
		}) {
		byPath[f.Path] = f
	}
	ping := byPath["/usr/bin/ping"]
	ping.Xattrs = map[string]string{"security.capability": "\x01\x00\x00\x02\x00\x20" + strings.Repeat("\x00", 14)}
	byPath["/usr/bin/ping"] = ping
	for _, f := range byPath {
		l.Files = append(l.Files, f)
	}
	l.sort()
	var err error
	d.Declared, err = ParseRules(declaredRules)
	require.NoError(t, err)
	return d, l
}

func (l *Listing) put(f File) {
	l.drop(f.Path)
	l.Files = append(l.Files, f)
	l.sort()
}

func (l *Listing) drop(name string) {
	l.Files = slices.DeleteFunc(l.Files, func(f File) bool { return f.Path == name })
}

func (l *Listing) alter(name string, change func(*File)) {
	i := slices.IndexFunc(l.Files, func(f File) bool { return f.Path == name })
	change(&l.Files[i])
}

func (l *Listing) setText(name, text string) {
	l.alter(name, func(f *File) { f.Size, f.SHA256 = int64(len(text)), sum(text) })
	l.Contents[name] = []byte(text)
}

func TestGoodDisk(t *testing.T) {
	d, l := goodDisk(t)
	findings, err := d.Account(l)
	require.NoError(t, err)
	require.Empty(t, findings)
}

// TestSpoiledDisk spoils the disk in one way a row; exactly the named findings
// come of it.
func TestSpoiledDisk(t *testing.T) {
	plant := func(name string, mode uint32) func(*Debian, *Listing) {
		return func(_ *Debian, l *Listing) { l.put(regular(name, mode, "planted")) }
	}
	alter := func(name string, change func(*File)) func(*Debian, *Listing) {
		return func(_ *Debian, l *Listing) { l.alter(name, change) }
	}
	mode := func(name string, mode uint32) func(*Debian, *Listing) {
		return alter(name, func(f *File) { f.Mode = mode })
	}
	changed := func(name string) func(*Debian, *Listing) {
		return alter(name, func(f *File) { f.SHA256 = sum("changed") })
	}
	put := func(f File) func(*Debian, *Listing) { return func(_ *Debian, l *Listing) { l.put(f) } }
	drop := func(name string) func(*Debian, *Listing) { return func(_ *Debian, l *Listing) { l.drop(name) } }
	text := func(name, text string) func(*Debian, *Listing) {
		return func(_ *Debian, l *Listing) { l.setText(name, text) }
	}
	capability := map[string]string{"security.capability": "\x01\x00\x00\x02\xff\xff\xff\xff" + strings.Repeat("\x00", 12)}
	for name, row := range map[string]struct {
		spoil func(*Debian, *Listing)
		want  []string // kind and path
	}{
		"authorized_keys of root":     {plant("/root/authorized_keys", 0o600), []string{"unexplained /root/authorized_keys"}},
		"a setuid shell":              {plant("/usr/bin/.sh", 0o4755), []string{"unexplained /usr/bin/.sh"}},
		"a cron job":                  {plant("/etc/cron.d/job", 0o644), []string{"unexplained /etc/cron.d/job"}},
		"a udev rule":                 {plant("/etc/udev/rules.d/1.rules", 0o644), []string{"unexplained /etc/udev/rules.d/1.rules"}},
		"profile.d":                   {plant("/etc/profile.d/x.sh", 0o644), []string{"unexplained /etc/profile.d/x.sh"}},
		"rc.local":                    {plant("/etc/rc.local", 0o755), []string{"unexplained /etc/rc.local"}},
		"an apt hook":                 {plant("/etc/apt/apt.conf.d/99x", 0o644), []string{"unexplained /etc/apt/apt.conf.d/99x"}},
		"ld.so.preload":               {plant("/etc/ld.so.preload", 0o644), []string{"unexplained /etc/ld.so.preload"}},
		"a sudoers rule":              {plant("/etc/sudoers.d/x", 0o440), []string{"unexplained /etc/sudoers.d/x"}},
		"a foreign library":           {plant("/usr/lib/libevil.so", 0o644), []string{"unexplained /usr/lib/libevil.so"}},
		"a foreign Python module":     {plant("/usr/lib/python3/dist-packages/evil.py", 0o644), []string{"unexplained /usr/lib/python3/dist-packages/evil.py"}},
		"compiled without source":     {plant("/usr/lib/python3/dist-packages/__pycache__/evil.cpython-311.pyc", 0o644), []string{"changed /usr/lib/python3/dist-packages/__pycache__/evil.cpython-311.pyc"}},
		"a wrapper before the tool":   {plant("/usr/local/bin/ss", 0o755), []string{"unexplained /usr/local/bin/ss"}},
		"hidden in /boot":             {plant("/boot/.x", 0o644), []string{"unexplained /boot/.x"}},
		"on an unmounted volume":      {put(regular("p2:/EFI/x", 0o644, "x")), []string{"unexplained p2:/EFI/x"}},
		"a line break in its name":    {plant("/etc/a\nb", 0o644), []string{"unexplained \"/etc/a\\nb\""}},
		"a name that is not UTF-8":    {plant("/etc/\xff", 0o644), []string{"unexplained \"/etc/\\xff\""}},
		"a unit":                      {plant("/etc/systemd/system/x.service", 0o644), []string{"unexplained /etc/systemd/system/x.service"}},
		"a drop-in":                   {plant("/etc/systemd/system/chrony.service.d/x.conf", 0o644), []string{"unexplained /etc/systemd/system/chrony.service.d/x.conf"}},
		"a maintainer script":         {plant("/var/lib/dpkg/info/evil.postinst", 0o755), []string{"changed /var/lib/dpkg/info/evil.postinst"}},
		"a changed maintainer script": {changed("/var/lib/dpkg/info/python3-cloud.postinst"), []string{"changed /var/lib/dpkg/info/python3-cloud.postinst"}},
		"an empty directory":          {put(dirs("/etc/.hidden")[0]), []string{"unexplained /etc/.hidden"}},
		"a directory for everybody":   {mode("/etc/systemd", 0o777), []string{"permissions /etc/systemd"}},
		"a device":                    {put(File{Path: "/etc/mem", Type: CharDev, Mode: 0o666, Device: "1:1"}), []string{"unexplained /etc/mem"}},
		"another device's name":       {put(File{Path: "/dev/null", Type: CharDev, Mode: 0o666, Device: "1:1"}), []string{"changed /dev/null"}},
		"a socket":                    {put(File{Path: "/etc/s", Type: Socket}), []string{"unexplained /etc/s"}},
		"a changed program":           {changed("/usr/bin/passwd"), []string{"changed /usr/bin/passwd"}},
		"a changed conffile":          {changed("/etc/sudoers"), []string{"changed /etc/sudoers"}},
		"a changed copy":              {changed("/etc/profile"), []string{"changed /etc/profile"}},
		"a file too large to read":    {alter("/usr/bin/ls", func(f *File) { f.SHA256 = "" }), []string{"changed /usr/bin/ls"}},
		"a link in place of a file":   {put(link("/usr/bin/ls", "/usr/bin/ss")), []string{"changed /usr/bin/ls"}},
		"a link elsewhere":            {put(link("/usr/bin/sh", "/tmp/sh")), []string{"changed /usr/bin/sh"}},
		"a missing file":              {drop("/usr/bin/ss"), []string{"missing /usr/bin/ss"}},
		"a missing declared link":     {drop("/etc/systemd/system/apt-daily.timer"), []string{"missing /etc/systemd/system/apt-daily.timer"}},
		"a missing library":           {drop("/usr/lib/libc.so.6"), []string{"missing /usr/lib/libc.so.6"}},
		"shadow for everybody":        {mode("/etc/shadow", 0o644), []string{"permissions /etc/shadow"}},
		"a package's file setuid":     {mode("/usr/bin/ls", 0o4755), []string{"permissions /usr/bin/ls"}},
		"a package's file without":    {mode("/usr/bin/passwd", 0o755), []string{"permissions /usr/bin/passwd"}},
		"another owner":               {alter("/usr/bin/ls", func(f *File) { f.UID = 1000 }), []string{"permissions /usr/bin/ls"}},
		"another group":               {alter("/etc/shadow", func(f *File) { f.GID = 43 }), []string{"permissions /etc/shadow"}},
		"a capability":                {alter("/usr/bin/ls", func(f *File) { f.Xattrs = capability }), []string{"permissions /usr/bin/ls"}},
		"another capability":          {alter("/usr/bin/ping", func(f *File) { f.Xattrs = capability }), []string{"permissions /usr/bin/ping"}},
		"an ACL":                      {alter("/etc/shadow", func(f *File) { f.Xattrs = map[string]string{"acl.access": "user:1000:r--"} }), []string{"permissions /etc/shadow"}},
		"a user attribute":            {alter("/usr/bin/ls", func(f *File) { f.Xattrs = map[string]string{"user.x": "y"} }), []string{"permissions /usr/bin/ls"}},
		"a baked machine-id":          {text("/etc/machine-id", "0123456789abcdef0123456789abcdef\n"), []string{"changed /etc/machine-id"}},
		"another root":                {text("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\ntoor:x:0:0::/root:/bin/sh\n"), []string{"changed /etc/passwd"}},
		"a user that can log in":      {text("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\nx:x:999:999::/:/bin/sh\n"), []string{"changed /etc/passwd"}},
		"a password":                  {text("/etc/shadow", "root:$y$j9T$x:1:0:99999:7:::\n"), []string{"changed /etc/shadow"}},
		"no password needed":          {text("/etc/shadow", "root::1:0:99999:7:::\n"), []string{"changed /etc/shadow"}},
		"a member":                    {text("/etc/group", "root:x:0:\nshadow:x:42:www-data\n"), []string{"changed /etc/group"}},
		"a certificate": {text("/etc/ssl/certs/ca-certificates.crt", "-----BEGIN CERTIFICATE-----\nEVIL\n-----END CERTIFICATE-----\n"),
			[]string{"changed /etc/ssl/certs/ca-certificates.crt"}},
		"an enabled debug shell": {put(link("/etc/systemd/system/multi-user.target.wants/debug-shell.service", "/lib/systemd/system/debug-shell.service")),
			[]string{"changed /etc/systemd/system/multi-user.target.wants/debug-shell.service"}},
		"a unit in another's place": {put(link("/etc/systemd/system/debug-shell.service", "/lib/systemd/system/chrony.service")),
			[]string{"changed /etc/systemd/system/debug-shell.service"}},
		"a masked service": {put(link("/etc/systemd/system/chrony.service", "/dev/null")), []string{"changed /etc/systemd/system/chrony.service"}},
		"an alternative that nobody asks for": {func(_ *Debian, l *Listing) {
			l.put(link("/etc/alternatives/ls", "/usr/bin/vim.tiny"))
			l.put(link("/usr/bin/dir", "/etc/alternatives/ls"))
		}, []string{"changed /etc/alternatives/ls", "changed /usr/bin/dir"}},
		"an alternative that leads elsewhere": {put(link("/etc/alternatives/vi", "/tmp/x")), []string{"changed /etc/alternatives/vi", "changed /usr/bin/vi"}},
		"a diverted file": {func(_ *Debian, l *Listing) {
			l.setText("/var/lib/dpkg/diversions", "/bin/sh\n/bin/sh.distrib\ndash\n/usr/bin/passwd\n/usr/bin/passwd.real\ncoreutils\n")
			l.put(File{Path: "/usr/bin/passwd.real", Type: Regular, Mode: 0o4755, SHA256: sum("passwd")})
			l.put(regular("/usr/bin/passwd", 0o4755, "evil"))
		}, []string{"changed /usr/bin/passwd", "unexplained /usr/bin/passwd", "unexplained /usr/bin/passwd.real"}},
		"a package from elsewhere": {func(_ *Debian, l *Listing) {
			l.setText("/var/lib/dpkg/status", string(l.Contents["/var/lib/dpkg/status"])+"Package: evil\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\n")
			l.put(regular("/usr/bin/evil", 0o755, "evil"))
		}, []string{"unexplained /usr/bin/evil", "unsigned \"evil\\x201\\x20amd64\""}},
		"a downgraded package": {func(d *Debian, _ *Listing) {
			delete(d.Manifests, Package{"coreutils", "1-1", "amd64"})
		}, []string{"unexplained /usr/bin/ls", "unexplained /usr/bin/ss", "unsigned \"coreutils\\x201-1\\x20amd64\""}},
		"a declared file for everybody": {mode("/etc/ssh/sshd_config.d/60-otc.conf", 0o666), []string{"permissions /etc/ssh/sshd_config.d/60-otc.conf"}},
	} {
		t.Run(name, func(t *testing.T) {
			d, l := goodDisk(t)
			row.spoil(&d, l)
			findings, err := d.Account(l)
			require.NoError(t, err)
			var got []string
			for _, f := range findings {
				got = append(got, string(f.Kind)+" "+quote(f.Path))
			}
			require.ElementsMatch(t, row.want, got)
		})
	}
}
