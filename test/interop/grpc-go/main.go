// Command grpc-go calls the Echo server of the tests with grpc-go. It prints one line per check and
// exits with 1 when one failed. The line DRAIN asks whoever started it to drain the server.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

type check struct {
	name string
	run  func(*client) error
}

// The drain comes last: no server is left after it.
var checks = []check{
	{"unary", unary},
	{"large unary, both ways", largeUnary},
	{"server stream", serverStream},
	{"empty server stream", emptyStream},
	{"client stream", clientStream},
	{"bidirectional stream", bidi},
	{"errors with details", details},
	{"an error after messages", lateError},
	{"a plain error stays inside", plainError},
	{"unknown method", unknownMethod},
	{"compressed message", compressed},
	{"deadlines", deadlines},
	{"cancels", cancels},
	{"metadata over the limit", largeMetadata},
	{"an oversized message harms no other call", oversized},
	{"150 oversized messages leak no stream", oversizedOften},
	{"250 goroutines over 100 streams", crowd},
	{"health", health},
	{"reflection", reflection},
	{"drain", drain},
}

func dial(address, ca string) (*grpc.ClientConn, error) {
	transport := insecure.NewCredentials()
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, err
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		transport = credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: "localhost"})
	}
	return grpc.NewClient(address, grpc.WithTransportCredentials(transport))
}

func main() {
	address := flag.String("address", "", "host:port or unix:/path")
	ca := flag.String("ca", "", "file with the roots of a TLS server")
	flag.Parse()
	connection, err := dial(*address, *ca)
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	defer connection.Close()
	failed := 0
	for _, check := range checks {
		if err := check.run(&client{connection}); err != nil {
			failed++
			fmt.Printf("not ok %s: %v\n", check.name, err)
			continue
		}
		fmt.Printf("ok %s\n", check.name)
	}
	if failed > 0 {
		os.Exit(1)
	}
}
