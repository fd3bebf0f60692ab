package network

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"
)

var be = binary.BigEndian

// Numbers of protocols and of types of frames.
const (
	protoICMP, protoTCP, protoUDP, protoICMP6, protoSCTP = 1, 6, 17, 58, 132

	typeIPv4, typeARP, typeIPv6 = 0x0800, 0x0806, 0x86dd
)

const (
	frameHeader = 14
	headerIPv4  = 20
	headerIPv6  = 40
	headerUDP   = 8
	headerTCP   = 20
)

// A packet is one of IPv4 or IPv6 without its headers.
type packet struct {
	src, dst netip.Addr
	proto    byte
	payload  []byte
	fragment bool // another than the first: the payload has no header of its protocol
}

// parseIP reads an IP packet; ok says that it is one.
func parseIP(b []byte) (p packet, ok bool) {
	if len(b) == 0 {
		return p, false
	}
	switch b[0] >> 4 {
	case 4:
		header := int(b[0]&15) * 4
		if header < headerIPv4 || len(b) < header {
			return p, false
		}
		total := int(be.Uint16(b[2:]))
		if total < header || total > len(b) {
			return p, false
		}
		p.src, p.dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		p.proto, p.fragment, p.payload = b[9], be.Uint16(b[6:])&0x1fff != 0, b[header:total]
		return p, true
	case 6:
		if len(b) < headerIPv6 || len(b)-headerIPv6 < int(be.Uint16(b[4:])) {
			return p, false
		}
		p.src, p.dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		p.proto, p.payload = b[6], b[headerIPv6:headerIPv6+int(be.Uint16(b[4:]))]
		return p, p.skipExtensions()
	}
	return p, false
}

// skipExtensions passes over the extension headers of IPv6, RFC 8200, section 4.
func (p *packet) skipExtensions() bool {
	for {
		length := 0
		switch p.proto {
		case 0, 43, 60: // hop by hop, routing, destination
			if len(p.payload) < 2 {
				return false
			}
			length = 8 * (int(p.payload[1]) + 1)
		case 44: // fragment
			if len(p.payload) < 8 {
				return false
			}
			p.fragment = p.fragment || be.Uint16(p.payload[2:])&^7 != 0
			length = 8
		default:
			return true
		}
		if len(p.payload) < length {
			return false
		}
		p.proto, p.payload = p.payload[0], p.payload[length:]
		if p.fragment {
			return true
		}
	}
}

// ports are those of TCP, UDP and SCTP, which all begin with them.
func (p packet) ports() (src, dst uint16, ok bool) {
	if p.fragment || len(p.payload) < 4 {
		return 0, 0, false
	}
	return be.Uint16(p.payload), be.Uint16(p.payload[2:]), true
}

func sum(b []byte, s uint32) uint32 {
	for ; len(b) > 1; b = b[2:] {
		s += uint32(be.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

func fold(s uint32) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

// transportSum is the checksum of TCP, UDP and ICMPv6.
func transportSum(src, dst netip.Addr, proto byte, payload []byte) uint16 {
	s := sum(src.AsSlice(), uint32(proto)+uint32(len(payload)))
	return fold(sum(payload, sum(dst.AsSlice(), s)))
}

// ip puts a payload, whose checksum is right, behind an IP header.
func ip(src, dst netip.Addr, proto byte, payload []byte) []byte {
	if src.Is4() {
		b := make([]byte, headerIPv4, headerIPv4+len(payload))
		b[0], b[8], b[9] = 0x45, 64, proto
		be.PutUint16(b[2:], uint16(headerIPv4+len(payload)))
		copy(b[12:], src.AsSlice())
		copy(b[16:], dst.AsSlice())
		be.PutUint16(b[10:], fold(sum(b, 0)))
		return append(b, payload...)
	}
	b := make([]byte, headerIPv6, headerIPv6+len(payload))
	b[0], b[6], b[7] = 0x60, proto, 255 // which neighbour discovery demands
	be.PutUint16(b[4:], uint16(len(payload)))
	copy(b[8:], src.AsSlice())
	copy(b[24:], dst.AsSlice())
	return append(b, payload...)
}

func udp(src, dst netip.AddrPort, payload []byte) []byte {
	b := make([]byte, headerUDP, headerUDP+len(payload))
	be.PutUint16(b, src.Port())
	be.PutUint16(b[2:], dst.Port())
	be.PutUint16(b[4:], uint16(headerUDP+len(payload)))
	b = append(b, payload...)
	check := transportSum(src.Addr(), dst.Addr(), protoUDP, b)
	if check == 0 {
		check = 0xffff // 0 means none
	}
	be.PutUint16(b[6:], check)
	return ip(src.Addr(), dst.Addr(), protoUDP, b)
}

// Flags of TCP.
const flagSYN, flagRST, flagACK = 2, 4, 16

func tcpSegment(src, dst netip.AddrPort, seq uint32, flags byte) []byte {
	b := make([]byte, headerTCP)
	be.PutUint16(b, src.Port())
	be.PutUint16(b[2:], dst.Port())
	be.PutUint32(b[4:], seq)
	b[12], b[13] = headerTCP/4<<4, flags
	be.PutUint16(b[14:], 1024)
	be.PutUint16(b[16:], transportSum(src.Addr(), dst.Addr(), protoTCP, b))
	return ip(src.Addr(), dst.Addr(), protoTCP, b)
}

func icmp6(src, dst netip.Addr, kind byte, body []byte) []byte {
	b := append([]byte{kind, 0, 0, 0}, body...)
	be.PutUint16(b[2:], transportSum(src, dst, protoICMP6, b))
	return ip(src, dst, protoICMP6, b)
}

var (
	le         = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// crc32c is SCTP's checksum.
func crc32c(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }
