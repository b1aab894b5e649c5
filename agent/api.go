// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"container/list"
	"context"
	"crypto/subtle"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/ironhand/ironhand/agent/ironic"
)

// Limits of the API. Conductors stay far below all of them.
const (
	// A command to write an image holds the config drive up to three times (in the image's
	// description, beside it, and in the node), so this is one of 8 MiB of text, which is 6 MiB packed.
	maxBody        = 24 << 20
	maxChunkedBody = 1 << 20 // for clients that do not say beforehand how long it is

	maxConnections = 256
	headerTime     = 10 * time.Second // for the handshake, and for the header of a request
	bodyTime       = 2 * time.Minute  // for the body of a request with a valid token
	answerTimeout  = 2 * time.Minute  // for the client to take an answer
	idleTime       = 30 * time.Second // between two requests on one connection
	shutdownTime   = 5 * time.Second  // for the answers on their way when the API ends
)

// An API is the side of the agent that the conductor talks to. The token is required
// for every command. It is required for reading results from the first request on that has it:
// conductors before 2024.1 send none there, and are shown no secrets. A wrong token is always refused.
type API struct {
	commands *Commands
	version  string
	started  time.Time
	log      *slog.Logger
	crowd    crowd

	mu         sync.Mutex
	token      ironic.Secret // "" as long as there is none: all commands are refused
	tokenOnGet bool          // the conductor sends the token when it reads results
}

// NewAPI makes an API that runs the given commands. Version and started are what it tells about the
// agent.
func NewAPI(commands *Commands, version string, started time.Time, log *slog.Logger) *API {
	return &API{commands: commands, version: version, started: started, log: log, crowd: crowd{limit: maxConnections}}
}

// SetToken sets the token to require.
func (a *API) SetToken(token ironic.Secret) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.token = token
}

// Serve answers requests on a listener until ctx ends, which returns nil. It closes the listener. Without a
// TLS configuration it speaks plain HTTP, which is for conductors that cannot verify the agent.
func (a *API) Serve(ctx context.Context, l net.Listener, t *tls.Config) error {
	server := &http.Server{
		Handler:           a.Handler(),
		ReadHeaderTimeout: headerTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    64 << 10,
		ConnState:         a.crowd.change,
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
		// Broken handshakes and the like: anyone can cause them, so they are not worth a line.
		ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
	}
	if t != nil {
		t = t.Clone()
		t.NextProtos = []string{"http/1.1"}
		l = tls.NewListener(l, t)
	}
	ended := make(chan struct{})
	keep := context.AfterFunc(ctx, func() {
		defer close(ended)
		last, cancel := context.WithTimeout(context.Background(), shutdownTime)
		defer cancel()
		if err := server.Shutdown(last); err != nil {
			server.Close()
		}
	})
	err := server.Serve(l)
	if !keep() { // the end was asked for
		<-ended
		return nil
	}
	return fmt.Errorf("serve API on %s: %w", l.Addr(), err)
}

// Handler returns the API as a handler, which limits everything but the number of connections.
func (a *API) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begin := time.Now()
		control := http.NewResponseController(w)
		control.SetWriteDeadline(time.Time{}) // an earlier request on this connection left one
		if r.ContentLength != 0 {
			// Even a body that nobody wants is waited for, to keep the connection.
			control.SetReadDeadline(begin.Add(headerTime))
		}

		answer, err := a.route(w, r)
		status := http.StatusOK
		if err != nil {
			var f *fault
			if !errors.As(err, &f) {
				e := asError(err)
				f = &fault{code: e.Code, text: e.Error()}
			}
			status, answer = f.code, f.answer()
			for k, v := range f.header {
				w.Header().Set(k, v)
			}
		}
		body, err := json.Marshal(answer)
		if err != nil { // results were JSON already, so this is a defect
			a.log.Error("answer is no JSON", "method", r.Method, "path", r.URL.Path, "err", err)
			status, body = http.StatusInternalServerError, []byte(`{"faultcode": "Server", "faultstring": "500 Internal Server Error: answer is no JSON"}`)
		}
		// Never the query: the token is in it.
		a.log.Debug("request", "method", r.Method, "path", r.URL.Path, "from", r.RemoteAddr, "status", status, "took", time.Since(begin))

		control.SetWriteDeadline(time.Now().Add(answerTimeout))
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		w.Write(body)
	})
}

// A fault is an answer that is not a success, in the words of ironic-python-agent.
type fault struct {
	code   int
	text   string
	header map[string]string
}

func (f *fault) Error() string { return f.text }

func (f *fault) answer() any {
	if f.code < 400 {
		return struct{}{}
	}
	side := "Client"
	if f.code >= 500 {
		side = "Server"
	}
	return map[string]string{"faultcode": side, "faultstring": f.text}
}

func httpFault(code int, name, description string) *fault {
	return &fault{code: code, text: fmt.Sprintf("%d %s: %s", code, name, description)}
}

// route finds what a request asks for and does it.
func (a *API) route(w http.ResponseWriter, r *http.Request) (any, error) {
	path := r.URL.Path
	switch path {
	case "/v1", "/v1/commands", "/commands":
		to := path + "/"
		if r.URL.RawQuery != "" {
			to += "?" + r.URL.RawQuery
		}
		return nil, &fault{code: http.StatusPermanentRedirect, header: map[string]string{"Location": to}}
	case "/":
		return get(r, func() (any, error) { return serviceDocument(root(r)), nil })
	case "/v1/":
		return get(r, func() (any, error) { return versionDocument(root(r)), nil })
	}
	// All else exists with and without the version.
	switch path = strings.TrimPrefix(path, "/v1"); path {
	case "/status":
		return get(r, func() (any, error) {
			return map[string]any{"started_at": float64(a.started.UnixMicro()) / 1e6, "version": a.version}, nil
		})
	case "/commands/":
		if r.Method == http.MethodPost {
			return a.run(w, r)
		}
		if !isGet(r) {
			return nil, methodFault("GET, HEAD, POST")
		}
		proven, err := a.mayRead(r)
		if err != nil {
			return nil, err
		}
		list := a.commands.List()
		for i := range list {
			list[i] = list[i].shown(proven)
		}
		return map[string]any{"commands": list}, nil
	}
	if id, ok := strings.CutPrefix(path, "/commands/"); ok && !strings.Contains(id, "/") {
		return get(r, func() (any, error) {
			proven, err := a.mayRead(r)
			if err != nil {
				return nil, err
			}
			// Waiting holds a connection, so it is for those that have shown the token.
			result, err := a.commands.Result(r.Context(), id, proven && wantsWait(r))
			return result.shown(proven), err
		})
	}
	return nil, httpFault(http.StatusNotFound, "Not Found", "The requested URL was not found on the server. If you entered the URL manually please check your spelling and try again.")
}

func get(r *http.Request, do func() (any, error)) (any, error) {
	if !isGet(r) {
		return nil, methodFault("GET, HEAD")
	}
	return do()
}

func isGet(r *http.Request) bool { return r.Method == http.MethodGet || r.Method == http.MethodHead }

func methodFault(allowed string) error {
	f := httpFault(http.StatusMethodNotAllowed, "Method Not Allowed", "The method is not allowed for the requested URL.")
	f.header = map[string]string{"Allow": allowed}
	return f
}

func wantsWait(r *http.Request) bool {
	return strings.EqualFold(r.URL.Query().Get("wait"), "true")
}

// mayRead checks the token of a request that reads results, and tells whether there was one.
func (a *API) mayRead(r *http.Request) (proven bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.tokenOnGet && a.token != "" && !r.URL.Query().Has("agent_token") {
		return false, nil
	}
	if err := a.checkToken(r); err != nil {
		return false, err
	}
	a.tokenOnGet = true
	return true, nil
}

// checkToken compares the token of a request, for which a.mu is held. The comparison takes the same time
// wherever the texts differ.
func (a *API) checkToken(r *http.Request) error {
	sent := r.URL.Query()["agent_token"]
	if a.token == "" || len(sent) != 1 || subtle.ConstantTimeCompare([]byte(sent[0]), []byte(a.token.Reveal())) != 1 {
		return httpFault(http.StatusUnauthorized, "Unauthorized", "Token invalid.")
	}
	if c, ok := r.Context().Value(connKey{}).(net.Conn); ok {
		a.crowd.prove(c)
	}
	return nil
}

// connKey is for the connection in the context of a request.
type connKey struct{}

// run is the request to run a command. The token is checked before the body is read, so that only the
// conductor can make the agent hold a large one.
func (a *API) run(w http.ResponseWriter, r *http.Request) (any, error) {
	a.mu.Lock()
	err := a.checkToken(r)
	a.mu.Unlock()
	if err != nil {
		return nil, err
	}
	control := http.NewResponseController(w)
	control.SetReadDeadline(time.Now().Add(bodyTime))
	name, params, err := readCommand(w, r)
	if err != nil {
		return nil, err
	}
	// From here on the server reads only to notice that the client has gone. A deadline would
	// look like that.
	control.SetReadDeadline(time.Time{})
	return a.commands.Do(r.Context(), name, params, wantsWait(r))
}

// readCommand reads the body of a request to run a command. A large body is for clients that say how large it is, as conductors do: so
// memory is taken once.
func readCommand(w http.ResponseWriter, r *http.Request) (name string, params json.RawMessage, err error) {
	limit := int64(maxBody)
	if r.ContentLength < 0 {
		limit = maxChunkedBody
	}
	tooLarge := httpFault(http.StatusRequestEntityTooLarge, "Request Entity Too Large", fmt.Sprintf("The limit is %d bytes.", limit))
	if r.ContentLength > limit {
		return "", nil, tooLarge
	}
	var body bytes.Buffer
	if r.ContentLength > 0 {
		if r.ContentLength > maxChunkedBody {
			runtime.GC()         // there may have been another such body just before,
			debug.FreeOSMemory() // and a sync.Pool (of encoding/json) lets go of a large buffer with the second collection only
		}
		body.Grow(int(r.ContentLength) + bytes.MinRead) // else the last doubling takes twice the memory
	}
	if _, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, limit)); err != nil {
		var tooMany *http.MaxBytesError
		if errors.As(err, &tooMany) {
			return "", nil, tooLarge
		}
		return "", nil, badRequest(fmt.Sprintf("The body did not arrive: %v", err))
	}
	return parseCommand(body.Bytes())
}

// parseCommand reads what command is asked for. Params comes back as a JSON object, a part of body.
func parseCommand(body []byte) (name string, params json.RawMessage, err error) {
	invalid := badRequest("Missing or invalid name or params")
	command, err := object(body)
	if errors.Is(err, errNoObject) {
		return "", nil, invalid
	}
	if _, ok := errors.AsType[*json.SyntaxError](err); ok {
		return "", nil, badRequest(fmt.Sprintf("The body is not JSON: %v", err))
	}
	if err != nil {
		return "", nil, badRequest(fmt.Sprintf("The body cannot be read: %v", err))
	}
	given, params := command["name"], command["params"]
	if len(given) == 0 || given[0] != '"' || len(params) == 0 || params[0] != '{' {
		return "", nil, invalid
	}
	if err := json.Unmarshal(given, &name); err != nil {
		return "", nil, invalid
	}
	return name, params, nil
}

func badRequest(description string) error {
	return httpFault(http.StatusBadRequest, "Bad Request", description)
}

// root returns the base URL under which the client reached the API.
func root(r *http.Request) string {
	if r.TLS == nil {
		return "http://" + r.Host
	}
	return "https://" + r.Host
}

// A link is how the documents refer to other places.
type link struct {
	Href string `json:"href"`
	Rel  string `json:"rel"`
	Type string `json:"type,omitempty"`
}

func versionLinks(root string) map[string]any {
	return map[string]any{
		"id": "v1",
		"links": []link{
			{root + "/v1", "self", ""},
			{"https://docs.openstack.org/ironic-python-agent/", "describedby", "text/html"},
		},
	}
}

// serviceDocument is what / answers. Clients know the agent by these words, so they stay
// ironic-python-agent's.
func serviceDocument(root string) any {
	return map[string]any{
		"name":            "OpenStack Ironic Python Agent API",
		"description":     "Ironic Python Agent is a provisioning agent for OpenStack Ironic",
		"versions":        []any{versionLinks(root)},
		"default_version": versionLinks(root),
	}
}

func versionDocument(root string) any {
	doc := versionLinks(root)
	for _, name := range []string{"commands", "status"} {
		doc[name] = []link{{root + "/v1/" + name, "self", ""}, {root + "/" + name, "bookmark", ""}}
	}
	doc["media_types"] = []map[string]string{
		{"base": "application/json", "type": "application/vnd.openstack.ironic-python-agent.v1+json"},
	}
	return doc
}

// A crowd bounds the number of connections. At the limit, the connection that has been
// waiting longest for its client gives way, so that clients that connect and say nothing
// cannot keep the conductor out. A connection waits until a request on it has shown the token: a request
// without one may promise a body that never comes, or never take its answer.
type crowd struct {
	limit int

	mu      sync.Mutex
	open    int
	waiting list.List // of net.Conn; the longest first
	place   map[net.Conn]*list.Element
}

// prove has a connection keep its place until it waits for its next request.
func (c *crowd) prove(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(conn)
}

// remove takes a connection from those that wait.
func (c *crowd) remove(conn net.Conn) {
	if e, ok := c.place[conn]; ok {
		c.waiting.Remove(e)
		delete(c.place, conn)
	}
}

// change is the server's hook for connections that begin, work, wait and end.
func (c *crowd) change(conn net.Conn, s http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.place == nil {
		c.place = map[net.Conn]*list.Element{}
	}
	if s == http.StateActive {
		return
	}
	c.remove(conn)
	switch s {
	case http.StateNew:
		c.open++
		c.place[conn] = c.waiting.PushBack(conn)
	case http.StateIdle:
		c.place[conn] = c.waiting.PushBack(conn)
	case http.StateHijacked, http.StateClosed:
		c.open--
	}
	if s == http.StateNew && c.open > c.limit {
		oldest := c.waiting.Remove(c.waiting.Front()).(net.Conn) // the new one if all others work
		delete(c.place, oldest)
		if t, ok := oldest.(*tls.Conn); ok {
			oldest = t.NetConn() // closing the TLS layer would write, and might block
		}
		oldest.Close()
	}
}
