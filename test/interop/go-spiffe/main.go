// A workload written with go-spiffe: fetches its SVID, watches it through rotations, verifies each one
// against the bundle, and reports a line for each.
package main

import (
	"context"
	"crypto/x509"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

type watcher struct {
	updates chan *workloadapi.X509Context
}

func (w watcher) OnX509ContextUpdate(context *workloadapi.X509Context) { w.updates <- context }

func (w watcher) OnX509ContextWatchError(err error) { fmt.Println("trouble:", err) }

func fail(format string, values ...any) {
	fmt.Printf("not ok: "+format+"\n", values...)
	os.Exit(1)
}

// verify checks what go-spiffe itself does not when it loads an SVID: the chain, against the bundle.
func verify(svid *x509svid.SVID, bundles *x509bundle.Set) {
	id, _, err := x509svid.Verify(svid.Certificates, bundles)
	if err != nil {
		fail("the SVID does not verify: %v", err)
	}
	if id != svid.ID {
		fail("the SVID of %s verifies as %s", svid.ID, id)
	}
	if svid.Certificates[0].PublicKeyAlgorithm != x509.ECDSA {
		fail("unexpected key algorithm")
	}
}

func main() {
	socket := flag.String("socket", "", "unix:///path of the Workload API")
	wanted := flag.String("id", "", "SPIFFE ID to expect")
	rotations := flag.Int("rotations", 2, "how many rotations to watch")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()

	source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(workloadapi.WithAddr(*socket)))
	if err != nil {
		fail("no source: %v", err)
	}
	first, err := source.GetX509SVID()
	if err != nil {
		fail("no SVID: %v", err)
	}
	if first.ID.String() != *wanted {
		fail("the SVID is of %s", first.ID)
	}
	if _, err := source.GetX509BundleForTrustDomain(first.ID.TrustDomain()); err != nil {
		fail("no bundle: %v", err)
	}
	fmt.Println("ok: source has", first.ID)

	client, err := workloadapi.New(ctx, workloadapi.WithAddr(*socket))
	if err != nil {
		fail("no client: %v", err)
	}
	defer client.Close()
	bundles, err := client.FetchX509Bundles(ctx)
	if err != nil || bundles.Len() != 1 {
		fail("bundles: %v, %v", bundles, err)
	}
	fmt.Println("ok: FetchX509Bundles")

	w := watcher{updates: make(chan *workloadapi.X509Context, 16)}
	go func() { _ = client.WatchX509Context(ctx, w) }()
	seen := map[string]bool{}
	for len(seen) <= *rotations {
		select {
		case update := <-w.updates:
			svid := update.DefaultSVID()
			verify(svid, update.Bundles)
			seen[svid.Certificates[0].SerialNumber.Text(16)] = true
			fmt.Println("ok: watched", len(seen), "of", *rotations+1)
		case <-ctx.Done():
			fail("only %d SVIDs were seen", len(seen))
		}
	}
	last, err := source.GetX509SVID()
	if err != nil || last.Certificates[0].SerialNumber.Cmp(first.Certificates[0].SerialNumber) == 0 {
		fail("the source did not follow the rotation: %v", err)
	}
	_ = source.Close()
	fmt.Println("ok: the source followed")
}
