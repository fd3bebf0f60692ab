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
// A fact is text under a name: what gather.sh wrote for it, one line per thing
// where that can be. These may be of use beyond the checks, and keep their form:
//
//	packages     STATUS NAME VERSION, the status of an installed one is "ii", of a held one "hi"
//	modules      NAME FILE VERSION of the drivers that flavors need; FILE is "missing" where there is none
//	architecture "kernel MACHINE" as uname -m says it, "packages ARCH" as dpkg or rpm does
//	initrd       "kernel RELEASE", "builtin NAME.ko", "initrd NAME.ko"
//	os-release   as os-release(5) has it
//	sshd-config  sshd -T
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
