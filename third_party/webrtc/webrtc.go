// SPDX-License-Identifier: Apache-2.0

// Package webrtc stands in for github.com/pion/webrtc/v4: no connection is ever made.
package webrtc

import (
	"errors"

	"github.com/pion/datachannel"
	"github.com/pion/logging"
)

var errNone = errors.New("WebRTC is not spoken")

// The types that are only passed on.
type (
	ICEServer struct {
		URLs       []string
		Username   string
		Credential any
	}
	ICECandidate struct {
		Address string
		Port    uint16
	}
	ICECandidatePair    struct{ Local, Remote *ICECandidate }
	SessionDescription  struct{ SDP string }
	StatsReport         map[string]any
	Configuration       struct{ ICEServers []ICEServer }
	SettingEngine       struct{ LoggerFactory logging.LoggerFactory }
	PeerConnectionState int
	API                 struct{}
	PeerConnection      struct{}
	DataChannel         struct{}
	DataChannelInit     struct{}
	OfferOptions        struct{}
	AnswerOptions       struct{}
	SCTPTransport       struct{}
	DTLSTransport       struct{}
	ICETransport        struct{}
)

func (*SettingEngine) DetachDataChannels() {}

func (PeerConnectionState) String() string { return "none" }

func NewAPI(...func(*API)) *API { return &API{} }

func WithSettingEngine(SettingEngine) func(*API) { return func(*API) {} }

func (*API) NewPeerConnection(Configuration) (*PeerConnection, error) { return nil, errNone }

func GatheringCompletePromise(*PeerConnection) <-chan struct{} {
	done := make(chan struct{})
	close(done)
	return done
}

func (*PeerConnection) Close() error                                      { return nil }
func (*PeerConnection) OnConnectionStateChange(func(PeerConnectionState)) {}
func (*PeerConnection) OnDataChannel(func(*DataChannel))                  {}
func (*PeerConnection) SetLocalDescription(SessionDescription) error      { return errNone }
func (*PeerConnection) SetRemoteDescription(SessionDescription) error     { return errNone }
func (*PeerConnection) LocalDescription() *SessionDescription             { return &SessionDescription{} }
func (*PeerConnection) CreateOffer(*OfferOptions) (SessionDescription, error) {
	return SessionDescription{}, errNone
}
func (*PeerConnection) CreateAnswer(*AnswerOptions) (SessionDescription, error) {
	return SessionDescription{}, errNone
}
func (*PeerConnection) GetStats() StatsReport { return nil }
func (*PeerConnection) SCTP() *SCTPTransport  { return &SCTPTransport{} }

func (*PeerConnection) CreateDataChannel(string, *DataChannelInit) (*DataChannel, error) {
	return nil, errNone
}

func (*SCTPTransport) Transport() *DTLSTransport   { return &DTLSTransport{} }
func (*DTLSTransport) ICETransport() *ICETransport { return &ICETransport{} }

func (*ICETransport) GetSelectedCandidatePair() (*ICECandidatePair, error) { return nil, errNone }

func (*DataChannel) Close() error                                 { return nil }
func (*DataChannel) OnClose(func())                               {}
func (*DataChannel) OnOpen(func())                                {}
func (*DataChannel) Detach() (datachannel.ReadWriteCloser, error) { return nil, errNone }
