package main

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/url"
	"strings"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/open-policy-agent/opa/v1/ast"
)

var errNobody = errors.New("a certificate names nobody")

// principalOf is who asks, as policies name it: the peer's certificate says it, which is parsed once.
func (s *server) principalOf(peer *authv3.AttributeContext_Peer) (*ast.Term, error) {
	certificate := peer.GetCertificate()
	if known, ok := s.principals.Load(certificate); ok {
		return known.(*ast.Term), nil
	}
	principal, err := parsePrincipal(certificate)
	if err != nil {
		return nil, err
	}
	term := ast.StringTerm(principal)
	s.principals.Store(certificate, term)
	return term, nil
}

// parsePrincipal reads the URI SAN of a certificate as Envoy gives it: PEM, URL-encoded.
func parsePrincipal(certificate string) (string, error) {
	text, err := url.PathUnescape(certificate)
	if err != nil {
		return "", err
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return "", errNobody
	}
	parsed, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", err
	}
	if len(parsed.URIs) != 1 {
		return "", errNobody
	}
	return strings.TrimPrefix(parsed.URIs[0].String(), "spiffe://"), nil
}
