// Package testsuite holds a running machine to the promises of its image: how
// its sshd is hardened, its users, kernel settings, time servers, listening
// sockets, drivers, update sources, and whether cloud-init did its work.
//
//	suite := testsuite.Suite{Profile: testsuite.OTC(), Params: params}
//	report, err := suite.Run(ctx, machine.Target)
//
// Run does two things that can be done apart: Gather reads facts over SSH, and
// Judge decides on them. Facts can be saved as JSON and judged again later,
// by another profile or with other parameters, without the machine.
//
// A check passes only on what was read. What timed out, was cut or could not
// be read is an error, never a pass. A waiver accepts a failing check for a
// reason and until a date; it does not hide an error.
//
// # Facts
//
// A fact is text under a name, one line per thing where that can be. Several
// things in a line stand apart by a space; the last may have spaces. "Files" are
// each file's text after a line "### PATH". Those of the wire:
//
//	wire-algorithms  KIND NAME,NAME… of each list in the server's SSH_MSG_KEXINIT: kex, hostkey,
//	                 cipher-to-server, cipher-to-client, mac-to-server, mac-to-client, …
//	wire-password    "login accepted|refused|undecided", then "offered", "tried" and "partial" with METHOD,METHOD…
//	wire-root        the same, of root by a key that is in root's authorized_keys
//	console          "password shown|absent"
//	script           "complete" where the facts below are all there; its error is why they are not
//
// Those of sshd, users and the kernel:
//
//	sshd-config      sshd -T of the running sshd's arguments, for a stranger from afar
//	sshd-match       the criteria of each Match block, one block a line
//	sshd-views       "none needed", or after "### SPEC" (sshd's -C) what sshd -T says else for that
//	sshd-processes   PID PPID EXECUTABLE|ARGUMENTS of what runs as sshd
//	root-key         ssh-keygen -l of the key that was put into root's authorized_keys, and sshd's AuthorizedKeysFile for root
//	users            NAME UID SHELL none|empty|locked|hash METHOD, the method of crypt(5) or "-"
//	shells           /etc/shells without comments
//	sudo             "as-user UID" that the login user's sudo gives, then sudo -l of that user
//	console-secret   readable|refused MODE OWNER FILE of /etc/passwd for user nobody, then with "holds " or "lacks "
//	                 before it each file that may hold the console's password
//	sysctl           NAME VALUE, the name as below /proc/sys: net/ipv4/ip_forward 0
//	boot             files: /proc/cmdline and /etc/fstab
//	apparmor         "enabled Y|N|absent", "lsm LIST", "profiles NUMBER"
//
// Those of services and the network:
//
//	services         systemctl show of some units, an empty line between two
//	failed-units     systemctl list-units --failed
//	processes        PID NAME
//	sockets          ss -lnp, each line with "tcp " or "udp " before it
//	ntp-config       files of chrony, ntp and systemd-timesyncd, without comments
//	hostname         "kernel NAME", "file NAME", "resolves ADDRESS"
//	network          ip -o addr, ip route of the default, "rendered FILE" of what cloud-init configured
//
// Those of cloud-init, identity, disk and packages:
//
//	cloud-init         /run/cloud-init/result.json
//	cloud-init-stages  /run/cloud-init/status.json
//	cloud-config       files of /etc/cloud, the lines about data sources and growing
//	identity           "uid 0", "boot SECONDS", "machine-id ID", "machine-id-time SECONDS", "hostkey SECONDS FINGERPRINT" of
//	                   each host key with the time of its file; times since 1970
//	disk               "source DEVICE", "fstype TYPE", "filesystem-bytes NUMBER" of /, "disk-bytes NUMBER" of the disk it is on
//	initrd             "kernel RELEASE", "builtin NAME.ko", "initrd NAME.ko"
//	modules            NAME FILE VERSION of the drivers that flavors need; FILE is "missing" where there is none
//	packages           STATUS NAME VERSION, the status of an installed one is "ii", of a held one "hi"
//	package-sources    files of apt's, yum's and zypp's sources, entries that are off as comments; "list FILE" of what apt has fetched
//	apt-targets        "deb URL SUITE COMPONENT" of what apt would fetch, or "no apt"
//	apt-config         apt-config dump, or "no apt"
//	package-options    files of apt's preferences and passwords, of dpkg, dnf, yum and zypp, without comments
//	package-keys       "key FILE PACKAGE BASE64" of each file of keys for packages ("-" is no package), "missing FILE", or "no files of keys"
//	package-state      "no apt", or "foreign ARCH", "audit LINE", "alternative NAME PATH", "upgrade LINE" and "repair LINE" of
//	                   what there is to be said of packages, then "looked"
//	update-units       "file UNIT STATE" and "unit UNIT STATE" of what may update by itself
//	agents             "package STATUS NAME VERSION", "hypervisor TYPE", "xenbus FILE", "release TEXT", "file PATH PACKAGE",
//	                   "unit KEY VALUE", "starts LINK", "process PID PACKAGE EXECUTABLE" and "ixgbevf VERSION PACKAGE FILE"
//	architecture       "kernel MACHINE" as uname -m says it, "packages ARCH" as dpkg or rpm does
//	os-release         ID, ID_LIKE, VERSION_ID and PRETTY_NAME of os-release(5)
//
// packages, modules, architecture, initrd, os-release and sshd-config are of use
// beyond the checks and keep their form; that of the others follows the checks. A
// check that needs something else has a [Probe] read it.
//
// # Security
//
// The machine is not trusted: what it says is bounded in size and time, and
// only the known host key is accepted. It can lie about itself, of course;
// what it offers on the wire is therefore looked at from outside too. The
// suite puts a key that nobody else has into root's authorized_keys, to see
// that root is refused although it could log in, and puts the file back.
//
// # Limits
//
// The machine needs POSIX sh, sudo, coreutils, procfs, systemd and iproute2.
// Time synchronisation itself is not judged: a sandbox has no network. For the same
// reason no package is really installed, and what is newer than the installed packages
// is not asked of an index. Options of apt are compared with the defaults of Debian 12;
// of other systems only those are judged that have to do with verification, and those
// in the files of dpkg, dnf, yum and zypper. Keys are known by fingerprint for Debian; those of
// other systems have to be named by [Params]. uvp-monitor need not run where the
// machine is not Xen's, because it has nothing there to speak with.
package testsuite
