package network

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/opentelekomcloud/go-imagefactory/internal/netguest"
)

// machine is a network with a guest on it, which has one address of each family and the
// link's.
type machine struct {
	*Network
	*netguest.Guest
	four, six, link netip.Addr
}

func newMachine(t *testing.T, config Config) machine {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	require.NoError(t, err)
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "network")
		ends[i], err = net.FileConn(f)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	n := New(ends[0], config)
	n.quiet, n.pause = time.Second, 20*time.Microsecond // there is no kernel that is slow to answer
	m := machine{Network: n, four: n.Address(), six: netip.MustParseAddr("2001:db8:1::99"), link: netip.MustParseAddr("fe80::99")}
	m.Guest = netguest.New(ends[1], n.MAC(), []netip.Prefix{netip.PrefixFrom(m.four, 24), netip.PrefixFrom(m.six, 64), netip.PrefixFrom(m.link, 64)}, gateway4, gateway6)
	t.Cleanup(func() {
		require.NoError(t, n.Close())
		require.NoError(t, n.Close())
		_ = ends[1].Close()
		m.Stack.Close()
	})
	return m
}

// serve answers each connection with its first line.
func (m machine) serve(t *testing.T, at netip.AddrPort) {
	t.Helper()
	l, err := m.Guest.Listen(at)
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
}

func echo(t *testing.T, c net.Conn, text string) {
	t.Helper()
	defer c.Close()
	go func() { _, _ = io.WriteString(c, text) }()
	got := make([]byte, len(text))
	_, err := io.ReadFull(c, got)
	require.NoError(t, err)
	require.True(t, text == string(got))
}

func TestDial(t *testing.T) {
	m := newMachine(t, Config{})
	for _, a := range []netip.Addr{m.four, m.six, m.link} {
		m.serve(t, netip.AddrPortFrom(a, 22))
		c, err := m.DialContext(t.Context(), "tcp", netip.AddrPortFrom(a, 22).String())
		require.NoError(t, err)
		echo(t, c, strings.Repeat("0123456789abcdef", 1<<16)) // 1 MiB
	}
	_, err := m.DialContext(t.Context(), "tcp", netip.AddrPortFrom(m.four, 23).String())
	require.Error(t, err)
	_, err = m.DialContext(t.Context(), "udp", "192.168.0.1:1")
	require.ErrorContains(t, err, "want tcp and an address")
	require.NoError(t, m.Close())
	_, err = m.DialContext(t.Context(), "tcp", netip.AddrPortFrom(m.four, 22).String())
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = m.Ports(t.Context())
	require.ErrorIs(t, err, net.ErrClosed)
}

// A guest that nobody answers within a deadline is left.
func TestDialEndsWithItsContext(t *testing.T) {
	ours, theirs := net.Pipe()
	n := New(ours, Config{})
	go func() { _, _ = io.Copy(io.Discard, theirs) }()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := n.DialContext(ctx, "tcp", "192.168.0.9:22")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = n.Ports(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, n.Close())
}

func TestListen(t *testing.T) {
	m := newMachine(t, Config{})
	at := netip.MustParseAddrPort("169.254.169.254:80")
	l, err := m.Network.Listen(at)
	require.NoError(t, err)
	_, err = m.Network.Listen(at)
	require.ErrorContains(t, err, "somebody listens there")
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, _ = io.Copy(c, c)
		}
	}()
	c, err := m.Dial(t.Context(), at)
	require.NoError(t, err)
	echo(t, c, "metadata")
	require.NoError(t, l.Close())
	_, err = l.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = m.Network.Listen(at)
	require.NoError(t, err)
	assert.Contains(t, m.Flows(), `tcp 169.254.169.254 80 1 - ""`)
}

func TestFlows(t *testing.T) {
	m := newMachine(t, Config{})
	c, err := m.Dial(t.Context(), netip.MustParseAddrPort("198.51.100.9:443"))
	require.NoError(t, err)
	_, err = io.WriteString(c, "hello \"home\"\n"+strings.Repeat("x", 1000))
	require.NoError(t, err)
	_, _ = io.ReadAll(c) // until the network has heard it
	_ = c.Close()
	u, err := m.UDP(netip.AddrPortFrom(m.four, 4000), netip.MustParseAddrPort("198.51.100.10:514"))
	require.NoError(t, err)
	for range 2 {
		_, err = io.WriteString(u, "log")
		require.NoError(t, err)
	}
	frame := append(make([]byte, 12), 0x88, 0xcc, 1, 2)
	require.NoError(t, m.Send(frame))
	sctp := ip(m.four, netip.MustParseAddr("198.51.100.11"), protoSCTP, sctpInit(1, 36412))
	require.NoError(t, m.Send(append(append(make([]byte, 12), 8, 0), sctp...)))
	require.Eventually(t, func() bool { return strings.Contains(m.Flows(), "sctp") }, time.Minute, time.Millisecond)
	flows := m.Flows()
	assert.Contains(t, flows, `tcp 198.51.100.9 443 1 - "hello \"home\"\n`+strings.Repeat("x", maxFirst-13)+`"`)
	assert.Contains(t, flows, `udp 198.51.100.10 514 2 - "log"`)
	assert.Contains(t, flows, `ethertype-88cc - 0 1 - "\x01\x02"`)
	assert.Contains(t, flows, `sctp 198.51.100.11 36412 1 - `)
}

func TestSnapshot(t *testing.T) {
	n := &Network{flows: newFlows()}
	n.flows.add(flow{proto: "dhcp"}, "", nil)
	before, restore := n.Flows(), n.Snapshot()
	n.flows.resolved("home.example", []netip.Addr{baitTime})
	n.flows.add(flow{proto: "ntp", addr: baitTime}, "", []byte("x"))
	for range 2 {
		require.NotEqual(t, before, n.Flows())
		restore()
		require.Equal(t, before, n.Flows())
		n.flows.add(flow{proto: "ntp", addr: baitTime}, "", []byte("x"))
		assert.NotContains(t, n.Flows(), "home.example")
	}
}

func TestFlowsAreBounded(t *testing.T) {
	f := newFlows()
	for i := range maxFlows + 5 {
		f.add(flow{proto: "udp", port: uint16(i)}, "a name\nwith a line", make([]byte, 1<<10))
	}
	text := (&Network{flows: f}).Flows()
	assert.Contains(t, text, "more - 0 5 - ")
	assert.Contains(t, text, "udp - 7 1 a?name?with?a?line ")
	assert.Equal(t, maxFlows+1, strings.Count(text, "\n"))
	assert.Less(t, len(text), 512<<10)
}

func ask(t *testing.T, m machine, name string, kind dnsmessage.Type) ([]netip.Addr, dnsmessage.RCode) {
	t.Helper()
	u, err := m.UDP(netip.AddrPortFrom(m.four, 0), netip.AddrPortFrom(resolver4, 53))
	require.NoError(t, err)
	defer u.Close()
	q := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, RecursionDesired: true}, Questions: []dnsmessage.Question{
		{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}}}
	b, err := q.Pack()
	require.NoError(t, err)
	_, err = u.Write(b)
	require.NoError(t, err)
	reply := make([]byte, 1500)
	n, err := u.Read(reply)
	require.NoError(t, err)
	var a dnsmessage.Message
	require.NoError(t, a.Unpack(reply[:n]))
	assert.EqualValues(t, 7, a.ID)
	var addrs []netip.Addr
	for _, r := range a.Answers {
		switch body := r.Body.(type) {
		case *dnsmessage.AResource:
			addrs = append(addrs, netip.AddrFrom4(body.A))
		case *dnsmessage.AAAAResource:
			addrs = append(addrs, netip.AddrFrom16(body.AAAA))
		}
	}
	return addrs, a.RCode
}

func TestNamesAndTime(t *testing.T) {
	metadata := netip.MustParseAddr("169.254.169.254")
	m := newMachine(t, Config{TimeServers: []string{"Time.example."}, Names: map[string][]netip.Addr{"metadata.example": {metadata}}})
	four, code := ask(t, m, "time.example.", dnsmessage.TypeA)
	require.Len(t, four, 1)
	assert.Zero(t, code)
	six, _ := ask(t, m, "TIME.example.", dnsmessage.TypeAAAA)
	require.Len(t, six, 1)
	none, code := ask(t, m, "telemetry.example.", dnsmessage.TypeA)
	assert.Empty(t, none)
	assert.Equal(t, dnsmessage.RCodeNameError, code)
	addrs, _ := ask(t, m, "metadata.example.", dnsmessage.TypeA)
	assert.Equal(t, []netip.Addr{metadata}, addrs)

	for _, server := range []netip.AddrPort{netip.AddrPortFrom(four[0], 123), netip.AddrPortFrom(baitTime, 123)} {
		u, err := m.UDP(netip.AddrPortFrom(m.four, 0), server)
		require.NoError(t, err)
		request := make([]byte, 48)
		request[0] = 4<<3 | 3
		binary.BigEndian.PutUint64(request[40:], 0x1122334455667788)
		_, err = u.Write(request)
		require.NoError(t, err)
		reply := make([]byte, 100)
		n, err := u.Read(reply)
		require.NoError(t, err)
		require.Equal(t, 48, n)
		assert.EqualValues(t, 4<<3|4, reply[0])
		assert.EqualValues(t, 0x1122334455667788, binary.BigEndian.Uint64(reply[24:]))
		assert.InDelta(t, time.Now().Unix()+2208988800, float64(binary.BigEndian.Uint32(reply[40:])), 60)
		_ = u.Close()
	}
	flows := m.Flows()
	assert.Contains(t, flows, "ntp "+four[0].String()+" 123 1 time.example ")
	assert.Contains(t, flows, "ntp 198.51.100.123 123 1 - ")
	assert.Contains(t, flows, "dns 100.125.4.25 53 1 A:telemetry.example ")
}

// What answers on every address is found, and nothing else is.
func TestPorts(t *testing.T) {
	m := newMachine(t, Config{})
	m.serve(t, netip.AddrPortFrom(m.four, 22))
	m.serve(t, netip.AddrPortFrom(m.four, 65535))
	m.serve(t, netip.AddrPortFrom(m.six, 8080))
	m.serve(t, netip.AddrPortFrom(m.link, 1))
	silent, err := m.UDP(netip.AddrPortFrom(m.four, 161), netip.AddrPort{})
	require.NoError(t, err)
	defer silent.Close()
	for _, a := range []netip.Addr{m.six, m.link} { // the network learns addresses from what it sees
		require.NoError(t, m.Send(append(append(make([]byte, 12), 0x86, 0xdd), icmp6(a, allNodes, 143, make([]byte, 4))...)))
	}
	require.Eventually(t, func() bool { return len(m.addresses()) == 3 }, time.Minute, time.Millisecond)
	text, err := m.Ports(t.Context())
	require.NoError(t, err)
	var found []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "tcp") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	four := m.four.String()
	assert.ElementsMatch(t, []string{"tcp " + four + " 22", "tcp " + four + " 65535", "tcp " + m.six.String() + " 8080", "tcp fe80::99 1"}, found)
	// The guest's stack refuses fewer questions in a second than a kernel does: ports may
	// seem silent that are not, and where they are many they are only counted.
	assert.Regexp(t, "(?m)^udp "+four+" 161$|^silent udp "+four, text)
}

// Whatever a machine sends, the network goes on.
func FuzzReceive(f *testing.F) {
	guest, other := netip.MustParseAddr("192.168.0.9"), netip.MustParseAddr("198.51.100.1")
	frame := func(kind uint16, b []byte) []byte {
		return append(be.AppendUint16(make([]byte, 12), kind), b...)
	}
	f.Add(frame(typeARP, make([]byte, 28)))
	f.Add(frame(typeIPv4, tcpSegment(netip.AddrPortFrom(guest, 1), netip.AddrPortFrom(other, 2), 3, flagSYN)))
	f.Add(frame(typeIPv4, udp(netip.AddrPortFrom(guest, 68), netip.AddrPortFrom(other, 67), append(make([]byte, 236), 0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255))))
	f.Add(frame(typeIPv4, udp(netip.AddrPortFrom(guest, 68), netip.AddrPortFrom(other, 53), []byte("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01x\x00\x00\x01\x00\x01"))))
	f.Add(frame(typeIPv4, udp(netip.AddrPortFrom(guest, 68), netip.AddrPortFrom(other, 123), append([]byte{0x23}, make([]byte, 47)...))))
	f.Add(frame(typeIPv6, icmp6(gateway6, allNodes, 135, make([]byte, 20))))
	f.Add(frame(typeIPv6, append([]byte{0x60, 0, 0, 0, 0, 8, 44, 1}, make([]byte, 40)...)))
	ours, theirs := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, theirs) }()
	n := New(ours, Config{})
	f.Cleanup(func() { _ = n.Close() })
	f.Fuzz(func(_ *testing.T, frame []byte) {
		n.receive(frame)
		for _, proto := range []byte{protoTCP, protoUDP, protoSCTP, 0} {
			if p, ok := parseIP(frame); ok {
				(&scan{at: p.src, from: scanners[p.src.Is6()], proto: proto, open: map[uint16]bool{}, closed: map[uint16]bool{}}).takes(p)
			}
		}
	})
}
