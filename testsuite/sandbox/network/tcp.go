package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	gtcp "gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// tcp is the network's end of all connections: it has every address. What it knows
// of the machine is that every packet goes there.
type tcp struct {
	network *Network
	stack   *stack.Stack
	link    *channel.Endpoint
	cancel  context.CancelFunc
	work    sync.WaitGroup

	mu        sync.Mutex
	listeners map[netip.AddrPort]*listener
}

const (
	mtu          = 1500
	nic          = 1
	maxTaken     = 64 // connections of the machine's that are being taken
	listenPeriod = 3 * time.Second
)

func newTCP(n *Network) *tcp {
	ctx, cancel := context.WithCancel(context.Background())
	t := &tcp{
		network: n, link: channel.New(queueLen, mtu, ""), cancel: cancel, listeners: map[netip.AddrPort]*listener{},
		stack: stack.New(stack.Options{
			NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
			TransportProtocols: []stack.TransportProtocolFactory{gtcp.NewProtocol},
		}),
	}
	sack := tcpip.TCPSACKEnabled(true)
	t.stack.SetTransportProtocolOption(gtcp.ProtocolNumber, &sack)
	t.stack.SetTransportProtocolHandler(gtcp.ProtocolNumber, gtcp.NewForwarder(t.stack, 0, maxTaken, t.take).HandlePacket)
	if err := t.stack.CreateNIC(nic, t.link); err != nil {
		panic(err.String()) // the first of a new stack
	}
	// Every address is its own: connections to any come in, and Dial takes any.
	t.stack.SetPromiscuousMode(nic, true)
	t.stack.SetSpoofing(nic, true)
	everywhere4, _ := tcpip.NewSubnet(tcpip.AddrFrom4([4]byte{}), tcpip.MaskFromBytes(make([]byte, 4)))
	everywhere6, _ := tcpip.NewSubnet(tcpip.AddrFrom16([16]byte{}), tcpip.MaskFromBytes(make([]byte, 16)))
	t.stack.SetRouteTable([]tcpip.Route{{Destination: everywhere4, NIC: nic}, {Destination: everywhere6, NIC: nic}})
	t.work.Add(1)
	go func() {
		defer t.work.Done()
		for p := t.link.ReadContext(ctx); p != nil; p = t.link.ReadContext(ctx) {
			view := p.ToView()
			_ = n.sendAll(ctx, view.AsSlice())
			view.Release()
			p.DecRef()
		}
	}()
	return t
}

func (t *tcp) close() {
	t.cancel()
	t.work.Wait()
	t.mu.Lock()
	for _, l := range t.listeners {
		l.end()
	}
	t.mu.Unlock()
	t.stack.Close()
	t.stack.Wait()
}

func addr(a netip.Addr) tcpip.Address { return tcpip.AddrFromSlice(a.AsSlice()) }

func family(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

// receive takes a segment. One that opens a connection is a flow.
func (t *tcp) receive(p packet, whole []byte) {
	if len(p.payload) >= headerTCP && p.payload[13]&(flagSYN|flagACK) == flagSYN {
		_, port, _ := p.ports()
		t.network.flows.add(flow{proto: "tcp", addr: p.dst, port: port}, "", nil)
	}
	b := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(whole)})
	t.link.InjectInbound(family(p.dst), b)
	b.DecRef()
}

func (t *tcp) dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	from := outside4
	switch {
	case to.Addr().Is6() && to.Addr().IsLinkLocalUnicast():
		from = gateway6
	case to.Addr().Is6():
		from = outside6
	}
	remote := tcpip.FullAddress{NIC: nic, Addr: addr(to.Addr().WithZone("")), Port: to.Port()}
	c, err := gonet.DialTCPWithBind(ctx, t.stack, tcpip.FullAddress{NIC: nic, Addr: addr(from)}, remote, family(to.Addr()))
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("cannot connect to the machine's %s: %w", to, err)
	}
	return c, nil
}

// take takes a connection that the machine opens: for its listener, or to hear what it
// has to say.
func (t *tcp) take(r *gtcp.ForwarderRequest) {
	id := r.ID()
	local, _ := netip.AddrFromSlice(id.LocalAddress.AsSlice())
	to := netip.AddrPortFrom(local, id.LocalPort)
	var queue waiter.Queue
	ep, err := r.CreateEndpoint(&queue)
	r.Complete(err != nil)
	if err != nil {
		return
	}
	conn := gonet.NewTCPConn(&queue, ep)
	t.mu.Lock()
	l := t.listeners[to]
	t.mu.Unlock()
	if l != nil {
		l.hand(conn)
		return
	}
	defer conn.Close()
	first := make([]byte, maxFirst)
	_ = conn.SetReadDeadline(time.Now().Add(listenPeriod))
	if n, _ := conn.Read(first); n > 0 {
		t.network.flows.say(flow{proto: "tcp", addr: to.Addr(), port: to.Port()}, first[:n])
	}
}

func (t *tcp) listen(at netip.AddrPort) (net.Listener, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.listeners[at] != nil {
		return nil, fmt.Errorf("cannot serve the machine at %s: %w", at, errInUse)
	}
	l := &listener{tcp: t, at: at, conns: make(chan net.Conn, maxTaken), ended: make(chan struct{})}
	t.listeners[at] = l
	return l, nil
}

type listener struct {
	tcp   *tcp
	at    netip.AddrPort
	conns chan net.Conn
	ended chan struct{}
	once  sync.Once
}

var _ net.Listener = (*listener)(nil)

func (l *listener) hand(c net.Conn) {
	select {
	case l.conns <- c:
	default: // nobody accepts
		_ = c.Close()
	}
}

func (l *listener) end() { l.once.Do(func() { close(l.ended) }) }

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.ended:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
	}
}

func (l *listener) Close() error {
	l.tcp.mu.Lock()
	if l.tcp.listeners[l.at] == l {
		delete(l.tcp.listeners, l.at)
	}
	l.tcp.mu.Unlock()
	l.end()
	for {
		select {
		case c := <-l.conns:
			_ = c.Close()
		default:
			return nil
		}
	}
}

func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.at) }
