module github.com/pion/webrtc/v4

go 1.26.0

require (
	github.com/pion/datachannel v1.5.9
	github.com/pion/logging v0.2.4
)

replace github.com/pion/datachannel => ../datachannel
