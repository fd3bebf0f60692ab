package network

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Config says what a network knows beside addresses. Its zero value is good.
type Config struct {
	// TimeServers are names that the name server answers with addresses of the
	// time server.
	TimeServers []string
	// Names are other names and what the name server answers.
	Names map[string][]netip.Addr
	// MAC is the address of the machine's network card, 6 bytes. If nil, it is a
	// random one as OpenStack gives.
	MAC net.HardwareAddr
	// Clock is what time servers tell. If nil, time.Now.
	Clock func() time.Time
}

// NewMAC is a random address of a network card, as OpenStack gives.
func NewMAC() net.HardwareAddr {
	mac := net.HardwareAddr{0xfa, 0x16, 0x3e, 0, 0, 0}
	_, _ = rand.Read(mac[3:]) // never fails, see crypto/rand
	return mac
}

// A Network is one machine's. Its methods may be called concurrently.
type Network struct {
	link  io.ReadWriteCloser
	mac   [6]byte // the machine's
	guest netip.Addr
	names map[string][]netip.Addr
	out   chan []byte // frames to the machine
	ended chan struct{}
	once  sync.Once
	work  sync.WaitGroup
	flows *flows
	tcp   *tcp
	clock func() time.Time
	quiet time.Duration // scanQuiet
	pause time.Duration // scanPause

	scanning sync.Mutex // one at a time
	mu       sync.Mutex
	seen     []netip.Addr // the machine's addresses
	replies  *scan        // who listens for what the machine answers; nil if nobody
}

// What the network is. The addresses are as a cloud's, the foreign ones of those that
// documents use, RFC 5737 and RFC 3849.
var (
	gatewayMAC = [6]byte{0xfa, 0x16, 0x3e, 0x00, 0x00, 0x01}

	gateway4  = netip.MustParseAddr("192.168.0.1")
	resolver4 = netip.MustParseAddr("100.125.4.25")
	gateway6  = netip.MustParseAddr("fe80::f816:3eff:fe00:1")
	subnet6   = netip.MustParsePrefix("2001:db8:1::/64")
	resolver6 = netip.MustParseAddr("2001:db8:53::53")
	outside4  = netip.MustParseAddr("203.0.113.7") // whom Dial comes from
	outside6  = netip.MustParseAddr("2001:db8:7::7")

	baitTime  = netip.MustParseAddr("198.51.100.123")
	baitProxy = netip.MustParseAddr("198.51.100.80")
	baitLog   = netip.MustParseAddr("198.51.100.51")
)

const (
	maxFrame   = 64 << 10
	queueLen   = 512
	maxAddress = 8 // of the machine, which are remembered
)

// errClosed says that the network is no more.
var errClosed = fmt.Errorf("cannot use the machine's network: %w", net.ErrClosed)

// New makes the network of the machine at the other end of link: Ethernet frames, each
// behind its length as 4 bytes, as QEMU's "stream" netdev speaks. It closes link when
// it ends.
func New(link io.ReadWriteCloser, config Config) *Network {
	mac := config.MAC
	if len(mac) != 6 {
		mac = NewMAC()
	}
	n := &Network{
		link: link, mac: [6]byte(mac),
		guest: netip.AddrFrom4([4]byte{192, 168, 0, 10 + mac[5]%200}),
		names: names(config), out: make(chan []byte, queueLen), ended: make(chan struct{}), flows: newFlows(), clock: time.Now,
		quiet: scanQuiet, pause: scanPause,
	}
	if config.Clock != nil {
		n.clock = config.Clock
	}
	n.seen = []netip.Addr{n.guest}
	n.tcp = newTCP(n)
	n.work.Add(2)
	go n.read()
	go n.write()
	return n
}

// names are what the name server knows: the time servers have an address each, of
// both families.
func names(c Config) map[string][]netip.Addr {
	all := map[string][]netip.Addr{}
	for name, addrs := range c.Names {
		all[canonical(name)] = addrs
	}
	for i, name := range c.TimeServers {
		if i == 250 {
			break
		}
		all[canonical(name)] = []netip.Addr{
			netip.AddrFrom4([4]byte{100, 125, 123, byte(1 + i)}),
			netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 1, 0x23, 15: byte(1 + i)}),
		}
	}
	return all
}

// MAC is the address that the machine's network card must have.
func (n *Network) MAC() net.HardwareAddr { return n.mac[:] }

// Address is what DHCP gives to the machine.
func (n *Network) Address() netip.Addr { return n.guest }

// Close ends the network. It may be called more than once.
func (n *Network) Close() error {
	n.end()
	n.work.Wait()
	n.tcp.close()
	return nil
}

func (n *Network) end() {
	n.once.Do(func() {
		close(n.ended)
		_ = n.link.Close()
	})
}

// read takes the machine's frames until the link ends.
func (n *Network) read() {
	defer n.work.Done()
	defer n.end()
	var size [4]byte
	for {
		if _, err := io.ReadFull(n.link, size[:]); err != nil {
			return
		}
		length := binary.BigEndian.Uint32(size[:])
		if length > maxFrame {
			return
		}
		frame := make([]byte, length)
		if _, err := io.ReadFull(n.link, frame); err != nil {
			return
		}
		n.receive(frame)
	}
}

// write sends frames to the machine until the network ends.
func (n *Network) write() {
	defer n.work.Done()
	for {
		select {
		case <-n.ended:
			return
		case frame := <-n.out:
			if _, err := n.link.Write(frame); err != nil {
				n.end()
				return
			}
		}
	}
}

// frame puts a frame's header, and its length, before a payload.
func (n *Network) frame(kind uint16, dst [6]byte, payload []byte) []byte {
	b := make([]byte, 4+frameHeader, 4+frameHeader+len(payload))
	be.PutUint32(b, uint32(frameHeader+len(payload)))
	copy(b[4:], dst[:])
	copy(b[10:], gatewayMAC[:])
	be.PutUint16(b[16:], kind)
	return append(b, payload...)
}

func kindOf(packet []byte) uint16 {
	if packet[0]>>4 == 4 {
		return typeIPv4
	}
	return typeIPv6
}

// send sends an IP packet to the machine, or drops it where the machine does not take
// what it is sent: the reader must never wait for the writer.
func (n *Network) send(packet []byte) {
	select {
	case n.out <- n.frame(kindOf(packet), n.mac, packet):
	default:
	}
}

// sendAll waits until the machine takes it.
func (n *Network) sendAll(ctx context.Context, packet []byte) error {
	select {
	case n.out <- n.frame(kindOf(packet), n.mac, packet):
		return nil
	case <-n.ended:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// receive takes one frame of the machine's.
func (n *Network) receive(frame []byte) {
	if len(frame) < frameHeader {
		return
	}
	body := frame[frameHeader:]
	switch kind := be.Uint16(frame[12:]); kind {
	case typeARP:
		n.arp(body)
	case typeIPv4, typeIPv6:
		p, ok := parseIP(body)
		if !ok || kind != kindOf(body) {
			n.flows.add(flow{proto: "damaged"}, "", body)
			return
		}
		n.learn(p.src)
		n.packet(p, body)
	default:
		n.flows.add(flow{proto: fmt.Sprintf("ethertype-%04x", kind)}, "", body)
	}
}

// packet looks at who it is for.
func (n *Network) packet(p packet, whole []byte) {
	n.mu.Lock()
	replies := n.replies
	n.mu.Unlock()
	if replies != nil && replies.takes(p) {
		return
	}
	src, dst, ported := p.ports()
	switch {
	case lateAnswer(p):
	case p.proto == protoTCP && ported:
		n.tcp.receive(p, whole)
	case p.proto == protoUDP && ported && len(p.payload) >= headerUDP:
		n.udp(p, netip.AddrPortFrom(p.src, src), netip.AddrPortFrom(p.dst, dst), p.payload[headerUDP:])
	case p.proto == protoICMP6 && len(p.payload) >= 8 && n.neighbour(p):
	case (p.proto == protoICMP || p.proto == protoICMP6) && len(p.payload) > 0 && !p.fragment:
		n.flows.add(flow{proto: protoName(p.proto), addr: p.dst, port: uint16(p.payload[0])}, "", nil)
	default:
		f := flow{proto: protoName(p.proto), addr: p.dst}
		if p.proto == protoSCTP || p.proto == 33 || p.proto == 136 { // DCCP, UDP-Lite
			f.port = dst
		}
		n.flows.add(f, "", p.payload)
	}
}

// lateAnswer reports whether a packet refuses what a scan asked that has ended.
func lateAnswer(p packet) bool {
	if !(&scan{from: scanners[p.dst.Is6()]}).isAsker(p.dst) || p.fragment || len(p.payload) == 0 {
		return false
	}
	switch p.proto {
	case protoICMP:
		return p.payload[0] == 3
	case protoICMP6:
		return p.payload[0] == 1 || p.payload[0] == 4
	case protoSCTP:
		return len(p.payload) > 12 && p.payload[12] != 1 // INIT
	}
	return false
}

func protoName(proto byte) string {
	switch proto {
	case protoICMP:
		return "icmp"
	case protoICMP6:
		return "icmp6"
	case protoTCP:
		return "tcp"
	case protoUDP:
		return "udp"
	case protoSCTP:
		return "sctp"
	}
	return fmt.Sprintf("ip-%d", proto)
}

// learn remembers an address of the machine's.
func (n *Network) learn(a netip.Addr) {
	if !a.IsGlobalUnicast() && !a.IsLinkLocalUnicast() {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.seen) < maxAddress && !slices.Contains(n.seen, a) {
		n.seen = append(n.seen, a)
	}
}

// addresses are the machine's that were seen, the one of DHCP first.
func (n *Network) addresses() []netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.seen)
}

// DialContext connects to the machine from a foreign address. Network is "tcp"; of the
// host in address nothing but an address counts.
func (n *Network) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil || network != "tcp" {
		return nil, fmt.Errorf("cannot connect to %s %s: want tcp and an address with its port", network, address)
	}
	select {
	case <-n.ended:
		return nil, errClosed
	default:
	}
	return n.tcp.dial(ctx, to)
}

// Listen serves the machine at an address, whatever that is: connections to it come
// to the listener.
func (n *Network) Listen(address netip.AddrPort) (net.Listener, error) { return n.tcp.listen(address) }

var errInUse = errors.New("somebody listens there")
