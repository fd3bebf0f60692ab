package network

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// A flow is what the machine sends to one place.
type flow struct {
	proto string // tcp, udp, icmp, …, or the service of the network that answered: dhcp, dns, ntp
	addr  netip.Addr
	port  uint16 // the type for icmp; 0 where there is none
	name  string // what it asked for, where it is a question
}

const (
	maxFlows = 1000
	maxFirst = 64 // bytes of a flow's first packet that are kept
)

type flows struct {
	mu     sync.Mutex
	order  []flow
	count  map[flow]int
	first  map[flow]string
	missed int
	hosts  map[netip.Addr]string // what the machine asked the name server for
}

func newFlows() *flows {
	return &flows{count: map[flow]int{}, first: map[flow]string{}, hosts: map[netip.Addr]string{}}
}

// add counts a packet of the flow. Its first bytes are kept where there are none yet.
func (f *flows) add(key flow, name string, first []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key.name = cmp.Or(name, f.hosts[key.addr])
	if f.count[key] == 0 {
		if len(f.order) == maxFlows {
			f.missed++
			return
		}
		f.order = append(f.order, key)
	}
	f.count[key]++
	if f.first[key] == "" && len(first) > 0 {
		f.first[key] = string(first[:min(len(first), maxFirst)])
	}
}

// say keeps the first bytes of what was counted already.
func (f *flows) say(key flow, first []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key.name = f.hosts[key.addr]
	if f.count[key] > 0 && f.first[key] == "" && len(first) > 0 {
		f.first[key] = string(first[:min(len(first), maxFirst)])
	}
}

func (f *flows) resolved(name string, addrs []netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range addrs {
		f.hosts[a] = name
	}
}

// Flows returns what the machine has sent of its own accord until now, a line for
// each place:
//
//	PROTOCOL ADDRESS PORT COUNT NAME "FIRST BYTES"
//
// Protocol is tcp, udp, sctp, icmp, icmp6, ip-NUMBER, ethertype-HEX, or a service that
// the network answered: arp, dhcp, dns, ntp. An address or a name that there is none
// of is "-", a port 0; of icmp the port is the type. The name is what was asked
// for, or what the address was asked for by. At most 1000 lines and one that
// says how many more packets there were.
func (n *Network) Flows() string {
	f := n.flows
	f.mu.Lock()
	defer f.mu.Unlock()
	var b strings.Builder
	keys := slices.Clone(f.order)
	slices.SortStableFunc(keys, func(a, b flow) int {
		return cmp.Or(cmp.Compare(a.proto, b.proto), a.addr.Compare(b.addr), cmp.Compare(a.port, b.port), cmp.Compare(a.name, b.name))
	})
	for _, k := range keys {
		addr := "-"
		if k.addr.IsValid() {
			addr = k.addr.String()
		}
		fmt.Fprintf(&b, "%s %s %d %d %s %+q\n", k.proto, addr, k.port, f.count[k], cmp.Or(plain(k.name), "-"), f.first[k])
	}
	if f.missed > 0 {
		fmt.Fprintf(&b, "more - 0 %d - \"\"\n", f.missed)
	}
	return b.String()
}

// Snapshot remembers what the machine has sent, for restore to make it that again: for
// a machine that is taken back to what it was.
func (n *Network) Snapshot() (restore func()) {
	f := n.flows
	f.mu.Lock()
	defer f.mu.Unlock()
	order, count, first, missed, hosts := slices.Clone(f.order), maps.Clone(f.count), maps.Clone(f.first), f.missed, maps.Clone(f.hosts)
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.order, f.count, f.first, f.missed, f.hosts = slices.Clone(order), maps.Clone(count), maps.Clone(first), missed, maps.Clone(hosts)
	}
}

// plain is a name without what a line of words cannot have.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
