"""A proxyless gRPC program of C-core, as program.ts is one of grpc-js-xds: the same arguments, lines and answers."""

import sys
from concurrent import futures

import grpc

METHODS = ("/castellan.test.v1.Echo/Unary", "/castellan.test.v1.Echo/Other")


class Echo(grpc.GenericRpcHandler):
    def __init__(self, name):
        self.name = name.encode()

    def service(self, details):
        if details.method not in METHODS:
            return None
        return grpc.unary_unary_rpc_method_handler(lambda request, context: self.name)


def say(text):
    print(" ".join(text.split("\n")), flush=True)


def serve(address, name):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4), xds=True)
    server.add_generic_rpc_handlers((Echo(name),))
    fallback = grpc.insecure_server_credentials()
    server.add_secure_port(address, grpc.xds_server_credentials(fallback))
    server.start()
    # it listens when its configuration has come; who calls before that tries again
    say("serving")
    sys.stdin.read()
    server.stop(None)


def dial(name):
    credentials = grpc.xds_channel_credentials()
    options = (("grpc.use_local_subchannel_pool", 1),)
    return grpc.secure_channel("xds:///" + name, credentials, options)


def call(channel, path, fields):
    metadata = [tuple(field.split("=")) for field in fields]
    try:
        answer = channel.unary_unary(path)(b"hi", timeout=8, metadata=metadata)
        return "ok " + answer.decode()
    except grpc.RpcError as error:
        return "error %s %s" % (error.code().name, error.details())


def talk():
    kept = {}
    say("serving")
    for line in sys.stdin:
        verb, name, path, *fields = line.split()
        if verb == "call":
            if name not in kept:
                kept[name] = dial(name)
            say(call(kept[name], path, fields))
        else:
            with dial(name) as channel:
                say(call(channel, path, fields))


if sys.argv[1] == "server":
    serve(sys.argv[2], sys.argv[3])
else:
    talk()
