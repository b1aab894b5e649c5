// SPDX-License-Identifier: Apache-2.0

package torrent

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/anacrolix/torrent/peer_protocol"
	utHolepunch "github.com/anacrolix/torrent/peer_protocol/ut-holepunch"
)

// Trackers name peers, and peers do not: what one sends of the address of another leads to no connection.
func TestPeerNamesAnAddress(t *testing.T) {
	name, _ := makeImage(t, 4<<20)
	m := mustMake(t, name, MakeOptions{})
	seed := mustSeed(t, m, name, local(1))
	o := local(2)
	o.Peers = []netip.AddrPort{addr(seed)}
	mustOpen(t, m, o)
	victim, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer victim.Close()
	msg, err := (&utHolepunch.Msg{MsgType: utHolepunch.Connect, AddrPort: netip.MustParseAddrPort(victim.Addr().String())}).MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if conns := seed.t.PeerConns(); len(conns) > 0 && conns[0].WriteExtendedMessage(peer_protocol.ExtensionNameMetadata, []byte("d8:msg_typei0e5:piecei0ee")) == nil {
			if err := conns[0].WriteExtendedMessage(utHolepunch.ExtensionName, msg); err == nil {
				t.Error("the node offers to connect to where a peer says")
			}
			conns[0].PeerExtensionIDs[utHolepunch.ExtensionName] = 2 // and though it does not
			conns[0].WriteExtendedMessage(utHolepunch.ExtensionName, msg)
			break
		}
		if time.Now().After(end) {
			t.Fatal("the node does not come")
		}
	}
	victim.(*net.TCPListener).SetDeadline(time.Now().Add(500 * time.Millisecond))
	if c, err := victim.Accept(); err == nil {
		c.Close()
		t.Error("the node connects to where a peer says")
	}
}
