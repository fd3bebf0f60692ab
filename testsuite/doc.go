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
//	sshd-views       "none needed", or what sshd -T says else: after "### SPEC" (sshd's -C) for that, after
//	                 "### sshd ARGUMENTS" of another sshd that listens
//	sshd-processes   PID PPID EXECUTABLE|ARGUMENTS of what runs as sshd
//	root-key         ssh-keygen -l of the key that was put into root's authorized_keys, and sshd's AuthorizedKeysFile for root
//	users            NAME UID SHELL none|empty|locked|hash METHOD, the method of crypt(5) or "-"
//	shells           /etc/shells without comments
//	sudo             "as-user UID" that the login user's sudo gives, then sudo -l of that user
//	console-secret   readable|refused MODE OWNER FILE of /etc/passwd for user nobody, then with "holds " or "lacks "
//	                 before it each file that may hold the console's password
//	sysctl           NAME VALUE, the name as below /proc/sys: net/ipv4/ip_forward 0
//	boot             files: /proc/cmdline and /etc/fstab
//	apparmor         "enabled Y|N|absent", "lsm LIST", "profiles NUMBER", "lenient NAME (MODE)" of each
//	                 profile that does not enforce
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
//	identity           "uid 0", "boot SECONDS", "now SECONDS", "machine-id ID", "machine-id-time SECONDS", "hostkey SECONDS FINGERPRINT" of
//	                   each host key with the time of its file; times since 1970
//	disk               "source DEVICE", "fstype TYPE", "filesystem-bytes NUMBER" of /, "disk-bytes NUMBER" of the disk it is on
//	initrd             "kernel RELEASE", "builtin NAME.ko", "initrd NAME.ko"
//	modules            NAME FILE VERSION of the drivers that flavors need; FILE is "missing" where there is none
//	packages           STATUS NAME VERSION, the status of an installed one is "ii", of a held one "hi"
//	package-sources    files of apt, yum and zypp, the lines with URLs and trust, and "list FILE" of what apt has fetched
//	apt-periodic       APT::Periodic of apt-config dump, or "no apt"
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
// Time synchronisation itself is not judged: a sandbox has no network.
package testsuite
