package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox/network"
)

// A wire is the guest's network, and the port of this machine that leads into it.
type wire struct {
	network  *network.Network
	listener net.Listener // on 127.0.0.1
	file     *os.File     // QEMU's end of the network; nil once QEMU has it
	metadata *http.Server // nil where no metadata is served
	cancel   context.CancelFunc
	work     sync.WaitGroup
}

// newWire makes a network whose other end is file, for QEMU to inherit: there is no
// socket in the file system that another could connect to.
func newWire(ctx context.Context, port int, config network.Config) (*wire, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("cannot listen on 127.0.0.1:%d: %w", port, ErrPortInUse)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot listen on 127.0.0.1:%d: %w", port, err)
	}
	ours, theirs, err := socketpair()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot make the guest's network: %w", err), l.Close())
	}
	w := &wire{network: network.New(ours, config), listener: l, file: theirs}
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	w.cancel = cancel
	w.work.Add(1)
	go w.serve(serving)
	return w, nil
}

// socketpair returns two ends of a stream, neither of which a program that somebody
// else starts inherits.
func socketpair() (net.Conn, *os.File, error) {
	syscall.ForkLock.RLock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "network"), os.NewFile(uintptr(fds[1]), "network")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return conn, theirs, nil
}

// serve leads each connection to the guest's sshd.
func (w *wire) serve(ctx context.Context) {
	defer w.work.Done()
	for {
		conn, err := w.listener.Accept()
		if err != nil {
			return
		}
		w.work.Add(1)
		go func() {
			defer w.work.Done()
			defer conn.Close()
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer stop()
			guest, err := w.network.DialContext(ctx, "tcp", netip.AddrPortFrom(w.network.Address(), sshPort).String())
			if err != nil {
				return
			}
			join(conn, guest)
		}()
	}
}

const sshPort = 22

// join copies both ways until one of the two ends.
func join(a, b net.Conn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(a, b)
		_ = a.Close()
		_ = b.Close()
	}()
	_, _ = io.Copy(b, a)
	_ = b.Close()
	_ = a.Close()
	<-done
}

// close ends the network and what leads into it. A nil wire is closed already.
func (w *wire) close() {
	if w == nil {
		return
	}
	_ = w.listener.Close()
	w.cancel()
	if w.file != nil {
		_ = w.file.Close()
	}
	if w.metadata != nil {
		_ = w.metadata.Close()
	}
	_ = w.network.Close()
	w.work.Wait()
}
