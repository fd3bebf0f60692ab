// Package network is the only network that a machine in a sandbox has. It lives in
// this process, at the other end of a stream of Ethernet frames, and is at once what
// serves the machine and what bears witness of it.
//
// It serves as a cloud's does: DHCP and router advertisements give addresses of
// both families, a name server knows the names in Config and no others, a time
// server answers, and [Network.Listen] adds servers of the caller's. It tempts, too:
// DHCP offers a foreign time server, a proxy, a log server and a host name, none of
// which a cloud image has a use for.
//
// It bears witness: [Network.Flows] is everything that the machine sent of its own
// accord, and [Network.Ports] what answers it from outside, on each of its addresses.
//
// # Security
//
// The machine is not trusted. Nothing that it sends goes further than this package,
// which opens no socket of the host's: a connection to an address that nobody serves
// is taken, its first bytes are read, and it ends. Frames, flows, addresses and
// connections are bounded.
//
// # Limits
//
// One machine for each network. Fragments are counted and not put together.
package network
