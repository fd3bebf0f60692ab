// Package sshtest is a real SSH server inside a test: everything on the wire
// is SSH, only the commands are functions of the test.
package sshtest

import (
	"crypto/ed25519"
	"crypto/rand"
	"io"
	"net"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
)

// A Server answers on a port of 127.0.0.1 until its test ends.
type Server struct {
	Address string
	HostKey ssh.PublicKey

	mu       sync.Mutex
	commands []string
}

// Options says what a server does. The zero value lets everybody in and runs
// nothing.
type Options struct {
	// Config decides who is let in. If nil, everybody is.
	Config *ssh.ServerConfig
	// Exec runs a command: it reads and writes the channel and returns the
	// exit status. A negative status is never sent: the peer is frozen. If
	// nil, every command ends with status 0.
	Exec func(command string, ch ssh.Channel) int
}

// Signer makes a new Ed25519 key.
func Signer(t testing.TB) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// Start starts a server.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := Signer(t)
	s := &Server{Address: l.Addr().String(), HostKey: host.PublicKey()}
	done := make(chan struct{})
	go func() {
		s.serve(l, host, o)
		close(done)
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return s
}

// Serve answers on l until l is closed.
func Serve(l net.Listener, host ssh.Signer, o Options) { new(Server).serve(l, host, o) }

func (s *Server) serve(l net.Listener, host ssh.Signer, o Options) {
	config := o.Config
	if config == nil {
		config = &ssh.ServerConfig{NoClientAuth: true}
	}
	config.AddHostKey(host)
	var wg sync.WaitGroup
	var conns []net.Conn
	for {
		conn, err := l.Accept()
		if err != nil {
			break
		}
		conns = append(conns, conn)
		wg.Go(func() { s.connection(conn, config, o.Exec) })
	}
	for _, c := range conns {
		_ = c.Close()
	}
	wg.Wait()
}

// Commands returns the commands that were run so far.
func (s *Server) Commands() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.commands...)
}

func (s *Server) connection(conn net.Conn, config *ssh.ServerConfig, exec func(string, ssh.Channel) int) {
	defer conn.Close()
	sc, chans, reqs, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	defer sc.Close()
	go ssh.DiscardRequests(reqs)
	for nc := range chans {
		ch, reqs, err := nc.Accept()
		if err != nil {
			return
		}
		go s.session(ch, reqs, exec)
	}
}

func (s *Server) session(ch ssh.Channel, reqs <-chan *ssh.Request, exec func(string, ssh.Channel) int) {
	for req := range reqs {
		var payload struct{ Command string }
		if req.Type != "exec" || ssh.Unmarshal(req.Payload, &payload) != nil {
			_ = req.Reply(false, nil)
			continue
		}
		_ = req.Reply(true, nil)
		s.mu.Lock()
		s.commands = append(s.commands, payload.Command)
		s.mu.Unlock()
		status := 0
		if exec != nil {
			status = exec(payload.Command, ch)
		} else {
			_, _ = io.Copy(io.Discard, ch)
		}
		if status < 0 {
			continue
		}
		_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(status)}))
		_ = ch.Close()
	}
}
