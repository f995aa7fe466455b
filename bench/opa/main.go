// The second peer of `bench authz`: ext_authz decided by the library of OPA, as cheaply as it lets itself be asked.
// What Envoy asks becomes terms without a detour by JSON, one prepared query answers all, and the data is keyed by
// who asks, so that ten thousand policies cost what one does.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/topdown"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
)

// Paths are prefixes, as those of the bench's policies are (`/api/5000/*`).
const module = `package authz

allow if {
	some r in data.rules[input.principal]
	startswith(input.path, r.path)
	r.methods[_] == input.method
}
`

// Each would be the same for every question: they are made once.
var (
	principalKey = ast.InternedTerm("principal")
	pathKey      = ast.InternedTerm("path")
	methodKey    = ast.InternedTerm("method")
)

var allowed = &authv3.CheckResponse{
	Status:       &status.Status{Code: int32(code.Code_OK)},
	HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{}},
}

var denied = &authv3.CheckResponse{
	Status: &status.Status{Code: int32(code.Code_PERMISSION_DENIED)},
	HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
		Status: &typev3.HttpStatus{Code: typev3.StatusCode_Forbidden},
	}},
}

type server struct {
	authv3.UnimplementedAuthorizationServer
	query      rego.PreparedEvalQuery
	noMetrics  metrics.Metrics
	principals sync.Map // text of a certificate → *ast.Term
}

func inputOf(principal *ast.Term, http *authv3.AttributeContext_HttpRequest) ast.Value {
	path, _, _ := strings.Cut(http.GetPath(), "?")
	return ast.NewObject(
		[2]*ast.Term{principalKey, principal},
		[2]*ast.Term{pathKey, ast.StringTerm(path)},
		[2]*ast.Term{methodKey, ast.InternedTerm(http.GetMethod())},
	)
}

func (s *server) Check(ctx context.Context, request *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	attributes := request.GetAttributes()
	principal, err := s.principalOf(attributes.GetSource())
	if err != nil {
		return denied, nil
	}
	// without a cancel of ours, Eval starts a goroutine for each question
	cancel := topdown.NewCancel()
	stop := context.AfterFunc(ctx, cancel.Cancel)
	defer stop()
	results, err := s.query.Eval(ctx,
		rego.EvalParsedInput(inputOf(principal, attributes.GetRequest().GetHttp())),
		rego.EvalExternalCancel(cancel),
		rego.EvalMetrics(s.noMetrics),
	)
	if err != nil {
		return nil, err
	}
	if results.Allowed() {
		return allowed, nil
	}
	return denied, nil
}

func prepare(ctx context.Context, file string) (rego.PreparedEvalQuery, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return rego.PreparedEvalQuery{}, err
	}
	var rules any
	if err := json.Unmarshal(text, &rules); err != nil {
		return rego.PreparedEvalQuery{}, err
	}
	store := inmem.NewFromObjectWithOpts(
		map[string]any{"rules": rules},
		// else each evaluation converts what it reads
		inmem.OptReturnASTValuesOnRead(true),
	)
	return rego.New(
		rego.Query("data.authz.allow"),
		rego.Module("authz.rego", module),
		rego.Store(store),
	).PrepareForEval(ctx)
}

func run() error {
	socket := flag.String("socket", "", "path of the unix socket")
	rules := flag.String("rules", "", "JSON file: principal → [{ path, methods }]")
	flag.Parse()
	// one thread decides, as in the servers beside it: more of them wait for each other
	runtime.GOMAXPROCS(1)
	// what it keeps is small: collected less often, the garbage of a question costs a fifth less CPU in all
	debug.SetGCPercent(400)
	query, err := prepare(context.Background(), *rules)
	if err != nil {
		return err
	}
	listener, err := net.Listen("unix", *socket)
	if err != nil {
		return err
	}
	grpcServer := grpc.NewServer(
		// windows of a fixed size: the load counts on more than the least, and no pings are spent on finding them
		grpc.InitialWindowSize(1<<20),
		grpc.InitialConnWindowSize(1<<26),
		// as many as there are questions at once: a goroutine that is new to each spends a third of all CPU on
		// letting its stack grow to what an evaluation needs
		grpc.NumStreamWorkers(128),
	)
	authv3.RegisterAuthorizationServer(grpcServer, &server{query: query, noMetrics: metrics.NoOp()})
	go func() {
		// who started this one is gone when its input ends
		_, _ = io.Copy(io.Discard, os.Stdin)
		grpcServer.Stop()
	}()
	fmt.Println("ready")
	return grpcServer.Serve(listener)
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}
