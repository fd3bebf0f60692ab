// Package netguest is a machine on a sandbox's network without a machine: a network
// stack in this process at the guest's end of the stream of frames, for tests.
package netguest

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"sync"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// A Guest has the addresses that it is given.
type Guest struct {
	Stack *stack.Stack
	link  io.ReadWriter
	ep    *channel.Endpoint
	mu    sync.Mutex
}

const (
	nic = 1
	mtu = 1500 + header.EthernetMinimumSize
)

// New is a guest at link, whose way to everywhere is gateway (and, for IPv6,
// gateway6). It ends when link does.
func New(link io.ReadWriter, mac net.HardwareAddr, addresses []netip.Prefix, gateway, gateway6 netip.Addr) *Guest {
	g := &Guest{link: link, ep: channel.New(1<<17, mtu, tcpip.LinkAddress(mac))}
	g.Stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
	})
	g.Stack.SetICMPBurst(1 << 20) // it refuses as fast as it is asked
	if err := g.Stack.CreateNIC(nic, ethernet.New(g.ep)); err != nil {
		panic(err.String())
	}
	for _, a := range addresses {
		protocol := ipv4.ProtocolNumber
		if a.Addr().Is6() {
			protocol = ipv6.ProtocolNumber
		}
		at := tcpip.AddressWithPrefix{Address: tcpip.AddrFromSlice(a.Addr().AsSlice()), PrefixLen: a.Bits()}
		if err := g.Stack.AddProtocolAddress(nic, tcpip.ProtocolAddress{Protocol: protocol, AddressWithPrefix: at}, stack.AddressProperties{}); err != nil {
			panic(err.String())
		}
		g.Stack.AddRoute(tcpip.Route{Destination: at.Subnet(), NIC: nic})
	}
	everywhere4, _ := tcpip.NewSubnet(tcpip.AddrFrom4([4]byte{}), tcpip.MaskFromBytes(make([]byte, 4)))
	everywhere6, _ := tcpip.NewSubnet(tcpip.AddrFrom16([16]byte{}), tcpip.MaskFromBytes(make([]byte, 16)))
	g.Stack.AddRoute(tcpip.Route{Destination: everywhere4, Gateway: tcpip.AddrFromSlice(gateway.AsSlice()), NIC: nic})
	g.Stack.AddRoute(tcpip.Route{Destination: everywhere6, Gateway: tcpip.AddrFromSlice(gateway6.AsSlice()), NIC: nic})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		g.read()
	}()
	go func() {
		for p := g.ep.ReadContext(ctx); p != nil; p = g.ep.ReadContext(ctx) {
			v := p.ToView()
			_ = g.Send(v.AsSlice())
			v.Release()
			p.DecRef()
		}
	}()
	return g
}

// Send sends a frame.
func (g *Guest) Send(frame []byte) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, err := g.link.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...))
	return err
}

func (g *Guest) read() {
	var size [4]byte
	for {
		if _, err := io.ReadFull(g.link, size[:]); err != nil {
			return
		}
		frame := make([]byte, binary.BigEndian.Uint32(size[:]))
		if _, err := io.ReadFull(g.link, frame); err != nil {
			return
		}
		p := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(frame)})
		g.ep.InjectInbound(0, p)
		p.DecRef()
	}
}

// Listen listens on a port of TCP at an address of the guest's.
func (g *Guest) Listen(at netip.AddrPort) (net.Listener, error) {
	return gonet.ListenTCP(g.Stack, full(at), family(at))
}

// Dial connects to somebody.
func (g *Guest) Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	return gonet.DialContextTCP(ctx, g.Stack, full(to), family(to))
}

// UDP is a socket at a port of the guest's, or where to is valid one that speaks with that.
func (g *Guest) UDP(at, to netip.AddrPort) (net.Conn, error) {
	var remote *tcpip.FullAddress
	if to.IsValid() {
		r := full(to)
		remote = &r
	}
	local := full(at)
	return gonet.DialUDP(g.Stack, &local, remote, family(at))
}

func full(a netip.AddrPort) tcpip.FullAddress {
	f := tcpip.FullAddress{NIC: nic, Port: a.Port()}
	if !a.Addr().IsUnspecified() {
		f.Addr = tcpip.AddrFromSlice(a.Addr().AsSlice())
	}
	return f
}

func family(a netip.AddrPort) tcpip.NetworkProtocolNumber {
	if a.Addr().Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}
