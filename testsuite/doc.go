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
// reason and until a date; it does not hide an error. What is bad may be tried once
// more ([Suite.Rerun], or Again where Gather and Judge are called apart); the first
// outcome stays beside the second, and what changes is flaky.
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
//
// Those that a [Witness] sees, or that take a machine that is thrown away:
//
//	wire-ports       "address ADDRESS" of what was asked, "tcp|udp|sctp ADDRESS PORT" and "protocol ADDRESS NUMBER" of what
//	                 answers, "silent tcp|udp|sctp|protocol ADDRESS COUNT" where a filter keeps many from refusing
//	wire-flows       PROTOCOL ADDRESS PORT COUNT NAME "FIRST BYTES" of what the machine has sent of its own accord
//	wire-ssh         after "### ADDRESS:PORT" of each open port of TCP "not SSH", or the lines of wire-algorithms and wire-password
//	wire-weak        KIND accepted|refused NAME,NAME… of algorithms that were offered to sshd and no others
//	sockets-later    sockets, when all else has been read and the network was restarted
//
// And what is known without a look:
//
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
//	accounts         lines of passwd, group, shadow and gshadow after those words, "locked", "empty" or "hash" for a password;
//	                 "mode MODE USER GROUP FILE"; "nss DATABASE SOURCE…"; "cloud-groups GROUP…" of the login user; and what the
//	                 distribution's packages make: "master-passwd", "master-group", "sysusers" and "scripts" with words of them
//	sudo-rules       cvtsudoers -f json of /etc/sudoers
//	authorized-keys  "names PATTERN…" of sshd, "keys USER MODE OWNER FILE TEXT" of each line there, "file FILE" that lets somebody else in
//	login-key        the public key that the suite logs in with
//	shells           /etc/shells without comments
//	sudo             "as-user UID" that the login user's sudo gives, then sudo -l of that user
//	console-secret   readable|refused MODE OWNER:GROUP FILE of /etc/passwd for user nobody, then with "holds " or "lacks "
//	                 before it each file that may hold the console's password, as it is or encoded
//	console-leaks    "searched NUMBER processes", then cmdline|comm|environ USER PID NAME of each that has the password, then
//	                 journal|units|kernel and how many lines of these have it
//	sysctl           NAME VALUE of the whole tree, the name as below /proc/sys: net/ipv4/ip_forward 0; left out
//	                 is what counts, what is random and what is secret
//	sysctl-next      files: what systemd-sysctl will read, in its order; and networkd's lines about forwarding, after "### network FILE"
//	boot             files: /proc/cmdline and /etc/fstab
//	boot-next        files: those of the boot loader that name kernels and their arguments
//	kernel           "release R", "installed R", "tainted N", "kexec_loaded N", "lsm LIST", "vulnerability NAME TEXT", "swap FILE KIND", …
//	modules-loaded   "module NAME TAINT|- packaged|changed|foreign|unknown FILE"
//	mounts           /proc/1/mountinfo
//	settings         files: of modprobe, systemd, limits, AppArmor and others, where they are not a package's unchanged content
//	apparmor         "enabled Y|N|absent", "lsm LIST", "profiles NUMBER", "loaded PROFILE (MODE)", "file PROFILE", "relaxed FILE"
//
// Those of services and the network:
//
//	services         systemctl show of some units, an empty line between two
//	failed-units     systemctl list-units of what has failed, "job …" of each job, "manager STATE"
//	processes        PID NAME
//	sockets          of each network namespace "ns ID FILE", "socket ID TABLE LOCAL INODE" as below /proc/net, "protocol ID
//	                 NAME COUNT", "device ID NAME", and "holder INODE PID UNIT EXECUTABLE", the inode 0 of sockets in no table
//	net-state        what decides where packets go: device, xdp, route, rule, proxy, xfrm, qdisc, table, ipvs, nft, bpf, each
//	                 with what the kernel says of it
//	units            systemctl show of loaded units, an empty line between two, and "disabled LINK" of what packages enabled
//	running          PID UID CGROUP package|unowned|deleted EXECUTABLE of each process, and below one "+PID maps|variable|works|script TEXT"
//	files            "KIND TYPE MODE USER GROUP MD5 SHA256 NOTE PATH TARGET" of each file that is not plainly a package's, with tabs; KIND is
//	                 unowned, changed, missing or special; then "enables UNIT", "asked ALTERNATIVE", "certificates packages|foreign"
//	ntp-config       files of chrony, by its own arguments and directives, ntp and systemd-timesyncd, without comments
//	time             "daemon NAME PID FILE LABEL", "arguments NAME ARGUMENTS", "source NAME", "activity NUMBER", "dhcp-ntp SERVER",
//	                 "rngd-opens DEVICE", "hwrng NAME", "unit NAME FILE", "dropins NAME FILES", "zone FILE", "journal persistent|volatile", …
//	resolver         files: hosts, resolv.conf, nsswitch.conf and others; "uplinks" (resolvectl), "leases", what
//	                 DHCP gave, and "announced", the addresses as bytes that routers and DHCP gave to networkd
//	hostname         "kernel NAME", "file NAME", "resolves ADDRESS"
//	network          ip -o addr, ip route of the default, "rendered FILE" of what cloud-init configured
//
// Those of cloud-init, identity, disk and packages:
//
//	cloud-init         /run/cloud-init/result.json
//	cloud-init-stages  /run/cloud-init/status.json
//	cloud-config       files of /etc/cloud, the lines about data sources and growing
//	identity           "uid 0", "boot SECONDS", "now SECONDS", "machine-id ID", "machine-id-time SECONDS", "hostkey SECONDS FINGERPRINT" of
//	                   each host key with the time of its file; times since 1970; "seed SHA256 FILE" of each random seed
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
// The facts of the kernel, settings, mounts, time and resolver end in a line "end",
// or "### end": without it they are an error.
//
// # Profiles
//
// OTC is what the images promise. Strict asks more, at the level of dev-sec's
// baselines and of ssh-audit: the list of what differs, and what an image that
// passes OTC fails of it, is with [Strict]. A Suite's FailFrom lets checks of a lower
// severity be reported and not count.
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
// That the clock is right is not judged: the witness sees that the image's time
// servers are asked and answers for them. Programs that are attached to the kernel
// and held by no process (eBPF of control groups) are not seen.
//
// No package is really installed, and what is newer than the installed packages is not
// asked of an index. Options of apt are compared with the defaults of Debian 12;
// of other systems only those are judged that have to do with verification, and those
// in the files of dpkg, dnf, yum and zypper. Keys are known by fingerprint for Debian; those of
// other systems have to be named by [Params]. uvp-monitor need not run where the
// machine is not Xen's, because it has nothing there to speak with.
package testsuite
