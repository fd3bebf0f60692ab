package network

import (
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// arp answers for every address but the machine's own: whatever it thinks to be near
// is the gateway.
func (n *Network) arp(b []byte) {
	if len(b) < 28 || be.Uint16(b[6:]) != 1 { // a request
		return
	}
	sender, target := netip.AddrFrom4([4]byte(b[14:18])), netip.AddrFrom4([4]byte(b[24:28]))
	n.learn(sender)
	if target == sender || target == n.guest || sender.IsUnspecified() || sender.IsLinkLocalUnicast() {
		return // it asks whether anybody has its own
	}
	if target != gateway4 {
		n.flows.add(flow{proto: "arp", addr: target}, "", nil)
	}
	reply := make([]byte, 28)
	copy(reply, b[:8])
	reply[7] = 2
	copy(reply[8:], gatewayMAC[:])
	copy(reply[14:], b[24:28])
	copy(reply[18:], b[8:18])
	select {
	case n.out <- n.frame(typeARP, n.mac, reply):
	default:
	}
}

var allNodes = netip.MustParseAddr("ff02::1")

// neighbour takes part in neighbour discovery, RFC 4861, and reports whether the
// packet was of that.
func (n *Network) neighbour(p packet) bool {
	switch p.payload[0] {
	case 133: // router solicitation
		n.advertise()
	case 135: // neighbour solicitation
		if len(p.payload) < 24 {
			return true
		}
		target := netip.AddrFrom16([16]byte(p.payload[8:24]))
		if p.src.IsUnspecified() { // is anybody there whose address this is? It will be the machine's
			n.learn(target)
			return true
		}
		if target == p.src {
			return true
		}
		body := append(be.AppendUint32(nil, 0xe0000000), p.payload[8:24]...) // router, solicited, override
		body = append(append(body, 2, 1), gatewayMAC[:]...)
		n.send(icmp6(target, p.src, 136, body))
	case 134, 136, 143, 131, 132: // advertisements, and who listens to which multicast
	default:
		return false
	}
	return true
}

// advertise is a router advertisement with a prefix and a name server, RFC 4861,
// section 4.2 and RFC 8106.
func (n *Network) advertise() {
	body := []byte{64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0} // a router for half an hour
	body = append(append(body, 1, 1), gatewayMAC[:]...)
	body = append(body, 3, 4, 64, 0xc0) // on the link, and for addresses
	body = be.AppendUint32(be.AppendUint32(be.AppendUint32(body, 86400), 14400), 0)
	body = append(body, subnet6.Addr().AsSlice()...)
	body = append(body, 25, 3, 0, 0)
	body = append(be.AppendUint32(body, 1800), resolver6.AsSlice()...)
	n.send(icmp6(gateway6, allNodes, 134, body))
}

// udp answers what the network serves, and notes everything.
func (n *Network) udp(p packet, from, to netip.AddrPort, data []byte) {
	switch {
	case to.Port() == 67 && p.src.Is4():
		n.dhcp(data)
		return
	case to.Port() == 53 && n.dns(from, to, data):
		return
	case to.Port() == 123 && n.ntp(from, to, data):
		return
	}
	n.flows.add(flow{proto: "udp", addr: p.dst, port: to.Port()}, "", data)
}

const (
	dhcpOptions = 240
	dhcpDiscover, dhcpOffer, dhcpRequest,
	dhcpAck, dhcpInform = 1, 2, 3, 5, 8
)

// dhcp answers a request, RFC 2131. Beyond what a cloud gives it offers what a
// rogue server would.
func (n *Network) dhcp(b []byte) {
	if len(b) < dhcpOptions || b[0] != 1 || be.Uint32(b[236:]) != 0x63825363 {
		return
	}
	kind := byte(0)
	for o := b[dhcpOptions:]; len(o) > 1 && o[0] != 255; {
		if o[0] == 0 {
			o = o[1:]
			continue
		}
		if len(o) < 2+int(o[1]) {
			return
		}
		if o[0] == 53 && o[1] == 1 {
			kind = o[2]
		}
		o = o[2+int(o[1]):]
	}
	answer := byte(dhcpAck)
	switch kind {
	case dhcpDiscover:
		answer = dhcpOffer
	case dhcpRequest, dhcpInform:
	default:
		return // it gives its address back, or has another server's
	}
	reply := make([]byte, dhcpOptions)
	reply[0], reply[1], reply[2] = 2, 1, 6
	copy(reply[4:12], b[4:12])
	copy(reply[16:], n.guest.AsSlice())
	copy(reply[20:], gateway4.AsSlice())
	copy(reply[28:44], b[28:44])
	be.PutUint32(reply[236:], 0x63825363)
	option := func(code byte, value []byte) { reply = append(append(reply, code, byte(len(value))), value...) }
	option(53, []byte{answer})
	option(54, gateway4.AsSlice())
	option(51, be.AppendUint32(nil, 86400))
	option(1, []byte{255, 255, 255, 0})
	option(3, gateway4.AsSlice())
	option(6, resolver4.AsSlice())
	option(15, []byte("openstacklocal"))
	// The way to everywhere, and to the metadata of clouds: RFC 3442.
	option(121, append(append([]byte{0}, gateway4.AsSlice()...), append([]byte{32, 169, 254, 169, 254}, gateway4.AsSlice()...)...))
	option(12, []byte("named-by-dhcp"))
	option(42, baitTime.AsSlice())
	option(4, baitTime.AsSlice())
	option(7, baitLog.AsSlice())
	option(252, []byte("http://"+baitProxy.String()+"/wpad.dat"))
	reply = append(reply, 255)
	n.flows.add(flow{proto: "dhcp", port: 67}, "", nil)
	n.send(udp(netip.AddrPortFrom(gateway4, 67), netip.AddrPortFrom(n.guest, 68), reply))
}

func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// dns answers a question, whomever it is put to, and reports whether it was one.
func (n *Network) dns(from, to netip.AddrPort, data []byte) bool {
	var parser dnsmessage.Parser
	header, err := parser.Start(data)
	if err != nil || header.Response {
		return false
	}
	question, err := parser.Question()
	if err != nil {
		return false
	}
	name := canonical(question.Name.String())
	kind := strings.TrimPrefix(question.Type.String(), "Type")
	n.flows.add(flow{proto: "dns", addr: to.Addr(), port: 53}, kind+":"+name, nil)
	addrs, known := n.names[name]
	reply := dnsmessage.Header{ID: header.ID, Response: true, RecursionDesired: header.RecursionDesired, RecursionAvailable: true}
	if !known {
		reply.RCode = dnsmessage.RCodeNameError
	}
	b := dnsmessage.NewBuilder(nil, reply)
	rr := dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET, TTL: 60}
	err = b.StartQuestions()
	if err == nil {
		err = b.Question(question)
	}
	if err == nil {
		err = b.StartAnswers()
	}
	for _, a := range addrs {
		switch {
		case err != nil:
		case a.Is4() && question.Type == dnsmessage.TypeA:
			err = b.AResource(rr, dnsmessage.AResource{A: a.As4()})
		case a.Is6() && question.Type == dnsmessage.TypeAAAA:
			err = b.AAAAResource(rr, dnsmessage.AAAAResource{AAAA: a.As16()})
		}
	}
	if err != nil {
		return true
	}
	answer, err := b.Finish()
	if err != nil {
		return true
	}
	n.flows.resolved(name, addrs)
	n.send(udp(to, from, answer))
	return true
}

// ntp answers a client, RFC 5905, with this machine's time, and reports whether it
// was one. It answers for the time servers that are named, and for the one that only
// DHCP offers: whoever takes that is seen to.
func (n *Network) ntp(from, to netip.AddrPort, data []byte) bool {
	if len(data) < 48 || data[0]&7 != 3 {
		return false
	}
	n.flows.add(flow{proto: "ntp", addr: to.Addr(), port: 123}, "", nil)
	now := ntpTime(n.clock())
	reply := make([]byte, 48)
	reply[0], reply[1], reply[2], reply[3] = data[0]&0x38|4, 2, data[2], 0xec // version as asked, stratum 2, 2^-20 s
	copy(reply[4:], []byte{0, 0, 0, 0x40, 0, 0, 0, 0x40, 127, 127, 1, 1})
	be.PutUint64(reply[16:], now-1<<32)
	copy(reply[24:32], data[40:48])
	be.PutUint64(reply[32:], now)
	be.PutUint64(reply[40:], now)
	n.send(udp(to, from, reply))
	return true
}

// ntpTime is the time since 1900 in units of 2^-32 s.
func ntpTime(t time.Time) uint64 {
	const between = 2208988800 // seconds from 1900 to 1970
	return uint64(t.Unix()+between)<<32 | uint64(t.Nanosecond())<<32/1e9
}
