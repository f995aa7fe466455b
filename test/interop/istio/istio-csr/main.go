// Command istio-csr asks the authority for certificates with the CA client of Istio's own agent. It
// prints one line per check and exits with 1 when one failed.
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"istio.io/istio/pkg/security"
	"istio.io/istio/security/pkg/nodeagent/caclient/providers/citadel"
	pki "istio.io/istio/security/pkg/pki/util"
)

var (
	address = flag.String("address", "", "host:port")
	roots   = flag.String("roots", "", "file with the authority's roots")
	token   = flag.String("token", "", "file with a service account token")
	folder  = flag.String("folder", "", "where certificates may be written")
	want    = flag.String("id", "", "the SPIFFE ID of the token's service account")
)

// fromFile is the token of a service account, as Kubernetes projects it.
type fromFile struct{ path string }

func (f fromFile) GetPlatformCredential() (string, error) {
	text, err := os.ReadFile(f.path)
	return strings.TrimSpace(string(text)), err
}
func (fromFile) GetIdentityProvider() string { return "" }
func (fromFile) Stop()                       {}

type credential struct{ cert, key string }

type asking struct {
	tokenFile string
	own       *credential
	options   pki.CertOptions
	seconds   int64
}

type answer struct {
	chain []string
	key   []byte
}

func ask(it asking) (*answer, error) {
	options := &security.Options{CAEndpoint: *address, ClusterID: "Kubernetes"}
	if it.tokenFile != "" {
		options.CredFetcher = fromFile{it.tokenFile}
	}
	transport := &citadel.TLSOptions{RootCert: *roots}
	if it.own != nil {
		transport.Cert, transport.Key = it.own.cert, it.own.key
	}
	client, err := citadel.NewCitadelClient(options, transport)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	// the agent asks for an identity; which one it gets is not its own choice
	it.options.Host = "spiffe://cluster.local/ns/kube-system/sa/admin"
	csr, key, err := pki.GenCSR(it.options)
	if err != nil {
		return nil, err
	}
	chain, err := client.CSRSign(csr, it.seconds)
	return &answer{chain, key}, err
}

func verify(it *answer, life time.Duration) error {
	pair, err := tls.X509KeyPair([]byte(it.chain[0]), it.key)
	if err != nil {
		return fmt.Errorf("certificate and key: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(it.chain[len(it.chain)-1])) {
		return errors.New("the last element holds no roots")
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		use := x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{usage}}
		if _, err := pair.Leaf.Verify(use); err != nil {
			return err
		}
	}
	if len(pair.Leaf.URIs) != 1 || pair.Leaf.URIs[0].String() != *want {
		return fmt.Errorf("the certificate is for %v", pair.Leaf.URIs)
	}
	if left := time.Until(pair.Leaf.NotAfter); left > life || left < life-time.Minute {
		return fmt.Errorf("it has %v left, not %v", left, life)
	}
	block, rest := pem.Decode([]byte(it.chain[0]))
	if block == nil || len(bytes.TrimSpace(rest)) != 0 {
		return errors.New("the first element is not one certificate")
	}
	return nil
}

func write(it *answer) (*credential, error) {
	made := &credential{filepath.Join(*folder, "cert-chain.pem"), filepath.Join(*folder, "key.pem")}
	if err := os.WriteFile(made.key, it.key, 0o600); err != nil {
		return nil, err
	}
	return made, os.WriteFile(made.cert, []byte(it.chain[0]), 0o600)
}

func getAndVerify(it asking) error {
	it.seconds = 3600
	got, err := ask(it)
	if err != nil {
		return err
	}
	return verify(got, time.Hour)
}

func renew() error {
	it := asking{tokenFile: *token, options: pki.CertOptions{ECSigAlg: pki.EcdsaSigAlg}, seconds: 7200}
	for range 3 {
		got, err := ask(it)
		if err != nil {
			return err
		}
		if err := verify(got, 2*time.Hour); err != nil {
			return err
		}
		own, err := write(got)
		if err != nil {
			return err
		}
		it.tokenFile, it.own = "", own
	}
	return nil
}

func refused(it asking, code string) error {
	it.options = pki.CertOptions{ECSigAlg: pki.EcdsaSigAlg}
	_, err := ask(it)
	if err == nil || !strings.Contains(err.Error(), "code = "+code) {
		return fmt.Errorf("got %v instead of %s", err, code)
	}
	return nil
}

func badToken() error {
	path := filepath.Join(*folder, "bad-token")
	if err := os.WriteFile(path, []byte("a.b.c"), 0o600); err != nil {
		return err
	}
	return refused(asking{tokenFile: path, seconds: 3600}, "Unauthenticated")
}

var checks = []struct {
	name string
	run  func() error
}{
	{"a token and an RSA key", func() error {
		return getAndVerify(asking{tokenFile: *token, options: pki.CertOptions{RSAKeySize: 2048}})
	}},
	{"a token and a P-384 key", func() error {
		options := pki.CertOptions{ECSigAlg: pki.EcdsaSigAlg, ECCCurve: pki.P384Curve}
		return getAndVerify(asking{tokenFile: *token, options: options})
	}},
	{"a certificate renews itself, twice", renew},
	{"nothing at all", func() error { return refused(asking{seconds: 3600}, "Unauthenticated") }},
	{"a bad token", badToken},
	{"more life than there is", func() error {
		return refused(asking{tokenFile: *token, seconds: 90 * 86400}, "InvalidArgument")
	}},
}

func main() {
	flag.Parse()
	failed := 0
	for _, check := range checks {
		if err := check.run(); err != nil {
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
