package testsuite

import (
	"context"
	"net"

	"golang.org/x/crypto/ssh"
)

// A Target is a machine that can be tested: where it is, how to log in, and
// the only host key that is accepted from it.
type Target struct {
	Address string        // host:port of its sshd
	User    string        // login user, who must have passwordless sudo
	Signer  ssh.Signer    // logs User in; may be nil where Suite.Gather says so
	HostKey ssh.PublicKey // the machine's host key, known from elsewhere than the network
	// Password is the login password that the machine shows on its console.
	// If empty, none was seen: then checks that need it fail. It is sent to
	// the machine only, and kept in no fact, report or log.
	Password string
	// NoConsole says that nobody sees the machine's console. Then checks of what it
	// shows are skipped, and the login by password is tried with one that is made up.
	NoConsole bool
	// Client is a connection to the machine as User, for the script to run on. It
	// stays open, unless the context ends. If nil, one is opened and closed.
	Client *ssh.Client
	// Witness sees the machine from outside. If nil, nobody does, and checks of
	// what only it sees are skipped.
	Witness Witness
}

// A Witness stands on a machine's network, outside of the machine. Package
// testsuite/sandbox/network has one whose Ports and Flows say what the facts
// wire-ports and wire-flows are.
type Witness interface {
	// Ports says what answers from outside. It may take minutes.
	Ports(ctx context.Context) (string, error)
	// Flows says what the machine has sent of its own accord until now.
	Flows() string
	// DialContext connects to "tcp" and one of the addresses and ports of Ports.
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}
