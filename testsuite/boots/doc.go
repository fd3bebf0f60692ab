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
// (the second after it was powered off and given a larger disk) and those of the set:
//
//	boot MACHINE up|failed TEXT       how it was made, or why it did not come up
//	machine-id MACHINE ID
//	hostkey MACHINE FINGERPRINT       one for each
//	seed MACHINE SHA256 FILE          of each random seed
//	password MACHINE LENGTH SYMBOLS   of the console's, and how many symbols its kinds of characters have
//	password-of MACHINE MACHINE       two show the same one
//	data MACHINE user-data|vendor-data applied|missing
//	root MACHINE FILESYSTEM-BYTES DISK-BYTES
//	watched MACHINE                   its console was seen
//	console MACHINE TEXT              a line that tells of a panic, an Oops, memory that ran out, an ordering cycle or an emergency shell
//
// # Limits
//
// A seed that is in the image and that the machine replaces when it starts is not seen
// here but by package ledger. A password that is derived from the card's address or the
// firmware's UUID differs between two machines and passes.
package boots
