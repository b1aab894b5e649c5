// SPDX-License-Identifier: Apache-2.0

// Track is a tracker without TLS, for measuring: it knows the torrents in the files that are named, and answers at http://ADDRESS/announce.
package main

import (
	"flag"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/ironhand/ironhand/torrent"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("track: ")
	listen := flag.String("listen", "", "address and port")
	flag.Parse()
	if *listen == "" || flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	var tracker torrent.Tracker
	for _, file := range flag.Args() {
		b, err := os.ReadFile(file)
		if err != nil {
			log.Fatal(err)
		}
		m, err := torrent.Parse(b)
		if err != nil {
			log.Fatalf("%s: %v", file, err)
		}
		tracker.Add(m, 0)
	}
	srv := http.Server{Addr: *listen, Handler: &tracker, ReadHeaderTimeout: 10 * time.Second}
	log.Fatal(srv.ListenAndServe())
}
