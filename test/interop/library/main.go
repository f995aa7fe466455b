// The other end of our Node library, written with go-spiffe: serves TLS and HTTP over mutual TLS, and does
// what it is told on standard input, a line for each answer.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

type end struct {
	x509 *workloadapi.X509Source
	jwt  *workloadapi.JWTSource
	peer spiffeid.ID
}

func fail(err error) {
	fmt.Println("not ok:", err)
	os.Exit(1)
}

func serial(state tls.ConnectionState) string {
	return state.PeerCertificates[0].SerialNumber.Text(16)
}

// greet answers each line with who has sent it.
func greet(connection net.Conn) {
	defer connection.Close()
	lines := bufio.NewScanner(connection)
	for lines.Scan() {
		id, err := spiffetls.PeerIDFromConn(connection)
		if err != nil {
			return
		}
		fmt.Fprintf(connection, "%s from %s\n", lines.Text(), id)
	}
}

func (e end) serveTLS() (net.Addr, error) {
	mode := spiffetls.MTLSServerWithSource(tlsconfig.AuthorizeID(e.peer), e.x509)
	listener, err := spiffetls.ListenWithMode(context.Background(), "tcp", "127.0.0.1:0", mode)
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go greet(connection)
		}
	}()
	return listener.Addr(), nil
}

func (e end) serveHTTP() (net.Addr, error) {
	config := tlsconfig.MTLSServerConfig(e.x509, e.x509, tlsconfig.AuthorizeID(e.peer))
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		return nil, err
	}
	handler := func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		id, _ := spiffeid.FromURI(r.TLS.PeerCertificates[0].URIs[0])
		fmt.Fprintf(w, "%s %s %s from %s", r.Method, r.URL.Path, body, id)
	}
	go func() { _ = http.Serve(listener, http.HandlerFunc(handler)) }()
	return listener.Addr(), nil
}

// dial sends a line to a server that has to be `peer` and gives what it answers and the serial it shows.
func (e end) dial(ctx context.Context, address string, peer spiffeid.ID) (string, error) {
	mode := spiffetls.MTLSClientWithSource(tlsconfig.AuthorizeID(peer), e.x509)
	connection, err := spiffetls.DialWithMode(ctx, "tcp", address, mode)
	if err != nil {
		return "", err
	}
	defer connection.Close()
	if _, err := fmt.Fprintln(connection, "hello"); err != nil {
		return "", err
	}
	answer, err := bufio.NewReader(connection).ReadString('\n')
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(answer), nil
}

// hold keeps a connection open for as long as the other end does.
func (e end) hold(ctx context.Context, address string) (string, error) {
	mode := spiffetls.MTLSClientWithSource(tlsconfig.AuthorizeID(e.peer), e.x509)
	connection, err := spiffetls.DialWithMode(ctx, "tcp", address, mode)
	if err != nil {
		return "", err
	}
	_, _ = fmt.Fprintln(connection, "held")
	_, _ = bufio.NewReader(connection).ReadString('\n')
	go func() { _, _ = io.Copy(io.Discard, connection) }()
	return "held", nil
}

func (e end) get(ctx context.Context, address string) (string, error) {
	config := tlsconfig.MTLSClientConfig(e.x509, e.x509, tlsconfig.AuthorizeID(e.peer))
	client := http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+address+"/go", strings.NewReader("body"))
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return fmt.Sprint(response.StatusCode, " ", string(body), " ", serial(*response.TLS)), err
}

func (e end) token(ctx context.Context, audience string) (string, error) {
	svid, err := e.jwt.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience})
	if err != nil {
		return "", err
	}
	return svid.Marshal(), nil
}

func (e end) verify(token, audience string) (string, error) {
	svid, err := jwtsvid.ParseAndValidate(token, e.jwt, []string{audience})
	if err != nil {
		return "", err
	}
	return svid.ID.String(), nil
}

func (e end) do(ctx context.Context, words []string) (string, error) {
	switch words[0] {
	case "dial":
		return e.dial(ctx, words[1], e.peer)
	case "dial-other":
		return e.dial(ctx, words[1], spiffeid.RequireFromPath(e.peer.TrustDomain(), "/other"))
	case "hold":
		return e.hold(ctx, words[1])
	case "get":
		return e.get(ctx, words[1])
	case "token":
		return e.token(ctx, words[1])
	case "verify":
		return e.verify(words[1], words[2])
	default:
		return "", fmt.Errorf("unknown command %s", words[0])
	}
}

func main() {
	socket := flag.String("socket", "", "unix:///path of the Workload API")
	peer := flag.String("peer", "", "SPIFFE ID of the other end")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	where := workloadapi.WithClientOptions(workloadapi.WithAddr(*socket))
	x509, err := workloadapi.NewX509Source(ctx, where)
	if err != nil {
		fail(err)
	}
	jwt, err := workloadapi.NewJWTSource(ctx, where)
	if err != nil {
		fail(err)
	}
	e := end{x509: x509, jwt: jwt, peer: spiffeid.RequireFromString(*peer)}
	plain, err := e.serveTLS()
	if err != nil {
		fail(err)
	}
	web, err := e.serveHTTP()
	if err != nil {
		fail(err)
	}
	fmt.Println("listening", plain, web)
	commands := bufio.NewScanner(os.Stdin)
	commands.Buffer(nil, 64*1024)
	for commands.Scan() {
		answer, err := e.do(ctx, strings.Fields(commands.Text()))
		if err != nil {
			fmt.Println("error", strings.ReplaceAll(err.Error(), "\n", " "))
		} else {
			fmt.Println("ok", answer)
		}
	}
}
