// SPDX-License-Identifier: Apache-2.0

// Cut stands before a web server and breaks all connections whenever it has sent a given number of bytes more, a given number of times. When it is told to end it prints how many bytes
// it has sent in all.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("cut: ")
	listen := flag.String("listen", "127.0.0.1:8498", "address to serve")
	server := flag.String("server", "127.0.0.1:8499", "address of the web server")
	every := flag.Int64("every", 1<<20, "bytes between two cuts")
	times := flag.Int("times", 1, "cuts")
	flag.Parse()
	if flag.NArg() > 0 || *every <= 0 {
		flag.Usage()
		os.Exit(2)
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	p := newProxy(*server, *every, *times)
	go func() { log.Fatal(p.accept(l)) }()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	<-stop
	p.mu.Lock()
	fmt.Println(p.sent)
}

type proxy struct {
	server string

	mu          sync.Mutex
	sent        int64 // bytes
	every, next int64
	times       int // that are left
	open        map[*net.TCPConn]bool
}

func newProxy(server string, every int64, times int) *proxy {
	return &proxy{server: server, every: every, next: every, times: times, open: map[*net.TCPConn]bool{}}
}

// accept serves all connections, until l is closed.
func (p *proxy) accept(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go p.serve(c.(*net.TCPConn))
	}
}

// serve carries one connection, until either end or a cut ends it.
func (p *proxy) serve(c *net.TCPConn) {
	defer p.close(c)
	s, err := net.Dial("tcp", p.server)
	if err != nil {
		log.Print(err)
		return
	}
	defer s.Close()
	p.mu.Lock()
	p.open[c] = true
	p.mu.Unlock()
	go func() {
		io.Copy(s, c) // its end is that of the connection
		s.Close()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := s.Read(buf)
		if n > 0 {
			if _, err := c.Write(buf[:n]); err != nil {
				return
			}
			p.count(int64(n))
		}
		if err != nil {
			return
		}
	}
}

// count counts n bytes that were sent, and cuts if it is time.
func (p *proxy) count(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sent += n; p.times == 0 || p.sent < p.next {
		return
	}
	p.next += p.every
	p.times--
	for c := range p.open {
		c.SetLinger(0) // a reset: what is on its way is lost
		c.Close()
	}
	clear(p.open)
}

func (p *proxy) close(c *net.TCPConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, c)
	c.Close()
}
