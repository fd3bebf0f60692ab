package testsuite

import "golang.org/x/crypto/ssh"

// A Target is a machine that can be tested: where it is, how to log in, and
// the only host key that is accepted from it.
type Target struct {
	Address string        // host:port of its sshd
	User    string        // login user, who must have passwordless sudo
	Signer  ssh.Signer    // logs User in
	HostKey ssh.PublicKey // the machine's host key, known from elsewhere than the network
	// Password is the login password that the machine shows on its console.
	// If empty, none was seen: then checks that need it fail. It is sent to
	// the machine only, and kept in no fact, report or log.
	Password string
}
