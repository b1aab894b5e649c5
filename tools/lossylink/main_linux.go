// SPDX-License-Identifier: Apache-2.0

// Lossylink joins two network namespaces by a slow link that loses packets, for where the kernel has no netem. It makes a TUN device in each and carries the packets itself: the
// server, 10.98.0.1, loses some of what it sends; the client is 10.98.0.2. It ends, and the devices with it, when it is told to.
package main

import (
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("lossylink: ")
	server := flag.String("server", "", "name of the server's namespace")
	client := flag.String("client", "", "name of the client's namespace")
	mbit := flag.Float64("mbit", 100, "Mbit/s each way")
	delay := flag.Duration("delay", 25*time.Millisecond, "of a packet, each way")
	loss := flag.Float64("loss", 0.01, "part of the server's packets that is lost")
	queue := flag.Int("queue", 1<<20, "bytes that wait for the link at most, each way")
	flag.Parse()
	if *server == "" || *client == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	a, err := tun("lossy-s", *server, "10.98.0.1/24")
	if err != nil {
		log.Fatal(err)
	}
	b, err := tun("lossy-c", *client, "10.98.0.2/24")
	if err != nil {
		log.Fatal(err)
	}
	ended := make(chan error, 4)
	carry(ended, a, b, way{bits: *mbit * 1e6, delay: *delay, loss: *loss, queue: *queue})
	carry(ended, b, a, way{bits: *mbit * 1e6, delay: *delay, queue: *queue})
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, unix.SIGTERM)
	select {
	case err := <-ended:
		log.Fatal(err)
	case <-stop:
	}
}

// tun makes a TUN device in a namespace.
func tun(name, namespace, address string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return nil, fmt.Errorf("make %s: %w", name, err)
	}
	for _, args := range []string{
		"link set " + name + " netns " + namespace,
		"-n " + namespace + " addr add " + address + " dev " + name,
		"-n " + namespace + " link set " + name + " up txqueuelen 2000",
	} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("ip %s: %w: %s", args, err, out)
		}
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// way is the link in one direction.
type way struct {
	bits  float64 // a second
	delay time.Duration
	loss  float64
	queue int // bytes
}

type packet struct {
	bytes []byte
	due   time.Time
}

// carry brings what is sent on from to the other end, until one of them is gone.
func carry(ended chan<- error, from, to *os.File, w way) {
	sent := make(chan packet, 1<<16)
	go func() {
		for p := range sent {
			time.Sleep(time.Until(p.due))
			if _, err := to.Write(p.bytes); err != nil {
				ended <- fmt.Errorf("write to %s: %w", to.Name(), err)
				return
			}
		}
	}()
	go func() {
		var free time.Time // when the link is, for the next packet
		buf := make([]byte, 64<<10)
		for {
			n, err := from.Read(buf)
			if err != nil {
				ended <- fmt.Errorf("read from %s: %w", from.Name(), err)
				return
			}
			now := time.Now()
			if free.Before(now) {
				free = now
			}
			if rand.Float64() < w.loss || free.Sub(now).Seconds()*w.bits/8 > float64(w.queue) {
				continue
			}
			free = free.Add(time.Duration(float64(n) * 8 / w.bits * float64(time.Second)))
			sent <- packet{append([]byte(nil), buf[:n]...), free.Add(w.delay)}
		}
	}()
}
