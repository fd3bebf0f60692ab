package network

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// A scan is one kind of question to one of the machine's addresses, and the answers.
type scan struct {
	at    netip.Addr // the machine's
	proto byte       // TCP, UDP or SCTP; 0 for which protocols it speaks
	from  netip.Addr // who asks; those of the same /15, or /64, are the same

	mu     sync.Mutex
	closed map[uint16]bool
	open   map[uint16]bool
}

const (
	scanPort  = 40000                   // where the questions come from
	scanTries = 2                       // of what is not answered, at least
	moreTries = 7                       // while one more answers: the machine may have been too busy to refuse
	scanQuiet = 1500 * time.Millisecond // without an answer before the next try
	// UDP's answers are bounded by the kernel to 1000 a second in all, and to one for
	// each who asks: so everybody asks once, and not too fast.
	scanPause = 1500 * time.Microsecond
)

// Who asks, by what is asked; UDP from another address each time, for which their
// last 16 bits are the port.
var scanners = map[bool]netip.Addr{
	false: netip.MustParseAddr("198.18.0.0"), true: netip.MustParseAddr("2001:db8:5ca::"),
}

// ports of UDP that are asked: the first thousand, and those of known services.
var udpPorts = func() []uint16 {
	list := []uint16{1194, 1434, 1645, 1646, 1701, 1718, 1719, 1812, 1813, 1900, 2049, 2123, 2152, 3283, 3386, 3478, 3702, 4045, 4500, 4789,
		5004, 5060, 5093, 5349, 5351, 5353, 5355, 5632, 5683, 5684, 6081, 6343, 6514, 7400, 8125, 8472, 9987, 10000, 10001, 10161, 11211, 17185,
		20000, 26000, 27015, 31337, 32768, 34964, 41641, 44818, 47808, 49152, 51820, 51821, 53413, 64738}
	for p := uint16(1); p < 1024; p++ {
		list = append(list, p)
	}
	slices.Sort(list)
	return list
}()

var allPorts = func() []uint16 {
	list := make([]uint16, 65535)
	for i := range list {
		list[i] = uint16(i + 1)
	}
	return list
}()

var allProtocols = func() []uint16 {
	list := make([]uint16, 256)
	for i := range list {
		list[i] = uint16(i)
	}
	return list
}()

// Ports asks each of the machine's addresses, from foreign ones, for all ports of TCP,
// the known ones of UDP and all protocols, and where it speaks SCTP for all ports of
// that. It says, a line each:
//
//	address ADDRESS              what was asked
//	tcp|udp|sctp ADDRESS PORT    what answered, or for UDP did not refuse
//	protocol ADDRESS NUMBER      what did not refuse, of IP's protocols
//	silent tcp|udp|sctp|protocol ADDRESS COUNT   what was neither refused nor answered, where that is more than a few
//
// It takes seconds of the machine's time, and ends with ctx.
func (n *Network) Ports(ctx context.Context) (string, error) {
	n.scanning.Lock()
	defer n.scanning.Unlock()
	defer n.listenFor(nil)
	var b strings.Builder
	for _, at := range n.addresses() {
		fmt.Fprintf(&b, "address %s\n", at)
		for _, question := range []struct {
			name  string
			proto byte
			ports []uint16
		}{{"tcp", protoTCP, allPorts}, {"udp", protoUDP, udpPorts}, {"protocol", 0, allProtocols}, {"sctp", protoSCTP, allPorts}} {
			if question.proto == protoSCTP && !strings.Contains(b.String(), fmt.Sprintf("protocol %s %d\n", at, protoSCTP)) {
				continue
			}
			s := &scan{at: at, proto: question.proto, from: scanners[at.Is6()], closed: map[uint16]bool{}, open: map[uint16]bool{}}
			silent, err := n.ask(ctx, s, question.ports)
			if err != nil {
				return "", fmt.Errorf("cannot look at the machine's ports from outside: %w", err)
			}
			found := s.answered()
			switch {
			case len(silent) > len(question.ports)/4: // a filter
				fmt.Fprintf(&b, "silent %s %s %d\n", question.name, at, len(silent))
			case question.proto == protoUDP || question.proto == 0:
				found = append(found, silent...)
			case len(silent) > 0:
				fmt.Fprintf(&b, "silent %s %s %d\n", question.name, at, len(silent))
			}
			slices.Sort(found)
			for _, port := range slices.Compact(found) {
				fmt.Fprintf(&b, "%s %s %d\n", question.name, at, port)
			}
		}
	}
	return b.String(), nil
}

func (n *Network) listenFor(s *scan) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.replies = s
}

// ask puts the question to the ports, again where there is no answer, and returns those
// that gave none.
func (n *Network) ask(ctx context.Context, s *scan, ports []uint16) ([]uint16, error) {
	n.listenFor(s)
	refuses := s.proto == protoUDP || s.proto == 0 // what is silent counts as open
	for try := range moreTries {
		for _, port := range ports {
			if err := n.sendAll(ctx, s.question(port, try)); err != nil {
				return nil, err
			}
			if refuses {
				if err := wait(ctx, n.pause<<try); err != nil {
					return nil, err
				}
			}
		}
		if err := n.settle(ctx, s, ports); err != nil {
			return nil, err
		}
		// A connection that was begun is not left hanging.
		if s.proto == protoTCP {
			for _, port := range s.answered() {
				if err := n.sendAll(ctx, tcpSegment(netip.AddrPortFrom(s.from, scanPort+uint16(try)), netip.AddrPortFrom(s.at, port), 2, flagRST)); err != nil {
					return nil, err
				}
			}
		}
		asked := len(ports)
		ports = s.unanswered(ports)
		if len(ports) == 0 || try+1 >= scanTries && len(ports) == asked {
			break
		}
	}
	return ports, nil
}

// settle waits until all ports have answered, or none does any more.
func (n *Network) settle(ctx context.Context, s *scan, ports []uint16) error {
	const step = 50 * time.Millisecond
	quiet := time.Duration(0)
	for before := -1; quiet < n.quiet && len(s.unanswered(ports)) > 0; quiet += step {
		if count := s.count(); count != before {
			before, quiet = count, 0
		}
		if err := wait(ctx, step); err != nil {
			return err
		}
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// asker is who asks for a port: of UDP and for a protocol somebody else each time.
func (s *scan) asker(port uint16, try int) netip.Addr {
	b := s.from.AsSlice()
	if s.from.Is4() {
		b[1] += byte(try % 2) // 198.18.0.0/15 has two for each port
	} else {
		b[8] = byte(try)
	}
	be.PutUint16(b[len(b)-2:], port)
	a, _ := netip.AddrFromSlice(b)
	return a
}

// udpQuestions are what known services answer to; others get an empty line.
var udpQuestions = map[uint16]string{
	53:    "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07version\x04bind\x00\x00\x10\x00\x03",
	69:    "\x00\x01x\x00octet\x00",
	123:   "\xe3\x00\x04\xfa\x00\x01\x00\x00\x00\x01" + strings.Repeat("\x00", 38),
	161:   "\x30\x26\x02\x01\x01\x04\x06public\xa0\x19\x02\x01\x01\x02\x01\x00\x02\x01\x00\x30\x0e\x30\x0c\x06\x08\x2b\x06\x01\x02\x01\x01\x01\x00\x05\x00",
	111:   "\x12\x34\x56\x78\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01\x86\xa0\x00\x00\x00\x02\x00\x00\x00\x00" + strings.Repeat("\x00", 16),
	1900:  "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: ssdp:all\r\n\r\n",
	5060:  "OPTIONS sip:x SIP/2.0\r\nVia: SIP/2.0/UDP x\r\nFrom: <sip:x>\r\nTo: <sip:x>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\n\r\n",
	5353:  "\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x09_services\x07_dns-sd\x04_udp\x05local\x00\x00\x0c\x00\x01",
	11211: "\x00\x01\x00\x00\x00\x01\x00\x00stats\r\n",
}

func (s *scan) question(port uint16, try int) []byte {
	source := uint16(scanPort + try)
	switch s.proto {
	case protoTCP:
		return tcpSegment(netip.AddrPortFrom(s.from, source), netip.AddrPortFrom(s.at, port), 1, flagSYN)
	case protoUDP:
		text, ok := udpQuestions[port]
		if !ok {
			text = "\r\n"
		}
		return udp(netip.AddrPortFrom(s.asker(port, try), source), netip.AddrPortFrom(s.at, port), []byte(text))
	case protoSCTP:
		return ip(s.from, s.at, protoSCTP, sctpInit(source, port))
	}
	return ip(s.asker(port, try), s.at, byte(port), make([]byte, 8))
}

// takes reports whether a packet is an answer, and notes it.
func (s *scan) takes(p packet) bool {
	if p.src != s.at || !s.isAsker(p.dst) || p.fragment {
		return false
	}
	port, to, ok := p.ports()
	switch {
	case p.proto == protoTCP && len(p.payload) >= headerTCP:
		flags := p.payload[13]
		if flags&(flagSYN|flagACK) == flagSYN || s.proto != protoTCP {
			return false // it opens a connection itself
		}
		s.note(port, flags&flagRST == 0)
	case p.proto == protoUDP && ok:
		if s.proto != protoUDP || to < scanPort || to >= scanPort+moreTries {
			return false
		}
		s.note(port, true)
	case p.proto == protoSCTP && s.proto == protoSCTP && len(p.payload) > 12:
		s.note(port, p.payload[12] == 2) // INIT ACK
	case p.proto == protoICMP || p.proto == protoICMP6:
		return s.refusal(p)
	default:
		return false
	}
	return true
}

func (s *scan) isAsker(a netip.Addr) bool {
	bits := 15
	if a.Is6() {
		bits = 64
	}
	prefix, err := s.from.Prefix(bits)
	return err == nil && prefix.Contains(a)
}

// refusal reads an ICMP error, which quotes what was asked.
func (s *scan) refusal(p packet) bool {
	if len(p.payload) < 9 {
		return false
	}
	kind, code := p.payload[0], p.payload[1]
	unreachable := p.proto == protoICMP && kind == 3 || p.proto == protoICMP6 && (kind == 1 || kind == 4)
	if !unreachable {
		return false
	}
	// The end of what was asked is not quoted: parseIP would take that for damage.
	inner := slices.Clone(p.payload[8:])
	var proto byte
	switch {
	case len(inner) >= headerIPv4+4 && inner[0]>>4 == 4:
		proto, inner = inner[9], inner[headerIPv4:]
	case len(inner) >= headerIPv6+4 && inner[0]>>4 == 6:
		proto, inner = inner[6], inner[headerIPv6:]
	default:
		return false
	}
	if s.proto == 0 {
		// Protocol unreachable, or an unknown next header: of UDP and its kin
		// a port that is refused says that the protocol is spoken.
		unknown := p.proto == protoICMP && code == 2 || p.proto == protoICMP6 && kind == 4
		s.note(uint16(proto), !unknown)
		return true
	}
	s.note(be.Uint16(inner[2:]), false)
	return true
}

func (s *scan) note(port uint16, open bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if open {
		s.open[port] = true
	} else {
		s.closed[port] = true
	}
}

func (s *scan) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open) + len(s.closed)
}

func (s *scan) answered() []uint16 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []uint16
	for port := range s.open {
		list = append(list, port)
	}
	return list
}

func (s *scan) unanswered(ports []uint16) []uint16 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(ports), func(port uint16) bool { return s.open[port] || s.closed[port] })
}

// sctpInit is a packet with an INIT chunk, RFC 9260, section 3.3.2.
func sctpInit(src, dst uint16) []byte {
	b := make([]byte, 12, 32)
	be.PutUint16(b, src)
	be.PutUint16(b[2:], dst)
	b = append(b, 1, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0x10, 0, 0, 1, 0, 1, 0, 0, 0, 1)
	le.PutUint32(b[8:], crc32c(b))
	return b
}
