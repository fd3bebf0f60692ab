// Package boots makes other machines from an image that is being tested, on other
// hardware and told by other data sources, and holds them beside the first: what
// only a second machine, a restart or a larger disk shows.
//
// A [Set] says which machines. [Start] makes them beside the first machine, each from
// a fresh overlay of the same image, as many at once as memory and processors allow.
// [Machines.Fact] waits for them and says what was seen, as the fact [FactName], for
// [Checks].
//
// The second machine has the first one's instance ID and host name rule, and nothing else
// of it: what an image derives from the ID is the same on both, and is seen.
//
// # The fact
//
// Lines of a word, a machine and values. The machines are first, second, restarted
// (the second after its clock was set eight days further, it was powered off and given a
// larger disk), and those of the set, of which moved is the disk of flavor on another instance:
//
//	boot MACHINE up|failed TEXT       how it was made, or why it did not come up
//	machine-id MACHINE ID
//	hostkey MACHINE FINGERPRINT       one for each
//	seed MACHINE SHA256 FILE          of each random seed
//	password MACHINE LENGTH SYMBOLS   of the console's, and how many symbols its kinds of characters have
//	password-of MACHINE MACHINE       two show the same one
//	data MACHINE user-data|vendor-data applied|missing
//	root MACHINE FILESYSTEM-BYTES DISK-BYTES
//	time MACHINE KERNEL INITRD USERSPACE   milliseconds of its boot
//	blame MACHINE MS UNIT             what it waited for longest
//	before MACHINE KERNEL INITRD USERSPACE   of the release before
//	judged MACHINE N                  so many checks passed on the first and were judged again
//	worse MACHINE CHECK TEXT          that do not pass again
//	watched MACHINE                   its console was seen
//	console MACHINE TEXT              a line that tells of a panic, an Oops, memory that ran out, an ordering cycle or an emergency shell
//
// # Limits
//
// A seed that is in the image and that the machine replaces when it starts is not seen
// here but by package ledger. A password that is derived from the card's address or the
// firmware's UUID differs between two machines and passes.
//
// A clock that is set further has timers of systemd run out that are due at a time of day
// or a date, and cron do what it does at each boot. What waits so long after a boot, and
// what cron is to do at a date, does not come out: packages testsuite and ledger name
// units and tables that no package has.
//
// How long a boot takes depends on the host. A host that is slower for the kernel is taken
// to be slower for what follows, so a kernel that is slower itself is not seen.
package boots
