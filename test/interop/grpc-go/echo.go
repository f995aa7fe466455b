package main

import (
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
)

// raw passes messages through as bytes: nothing of ours is generated for Go.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(v any) ([]byte, error) {
	message, ok := v.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("not bytes: %T", v)
	}
	return *message, nil
}

func (raw) Unmarshal(data []byte, v any) error {
	message, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("not bytes: %T", v)
	}
	*message = append([]byte(nil), data...)
	return nil
}

// ask is castellan.test.v1.EchoRequest.
type ask struct {
	text    string
	payload []byte
	count   uint64
	fail    string
	hang    bool
}

func (a ask) encode() *[]byte {
	var out []byte
	if a.text != "" {
		out = protowire.AppendString(protowire.AppendTag(out, 1, protowire.BytesType), a.text)
	}
	if len(a.payload) > 0 {
		out = protowire.AppendBytes(protowire.AppendTag(out, 2, protowire.BytesType), a.payload)
	}
	if a.count > 0 {
		out = protowire.AppendVarint(protowire.AppendTag(out, 3, protowire.VarintType), a.count)
	}
	if a.fail != "" {
		out = protowire.AppendString(protowire.AppendTag(out, 4, protowire.BytesType), a.fail)
	}
	if a.hang {
		out = protowire.AppendVarint(protowire.AppendTag(out, 5, protowire.VarintType), 1)
	}
	return &out
}

// reply is castellan.test.v1.EchoReply.
type reply struct {
	text    string
	payload []byte
	number  uint64
}

func decode(in []byte) (reply, error) {
	var out reply
	for len(in) > 0 {
		number, kind, n := protowire.ConsumeTag(in)
		if n < 0 {
			return out, protowire.ParseError(n)
		}
		in = in[n:]
		switch {
		case kind == protowire.BytesType && (number == 1 || number == 2):
			value, n := protowire.ConsumeBytes(in)
			if n < 0 {
				return out, protowire.ParseError(n)
			}
			if number == 1 {
				out.text = string(value)
			} else {
				out.payload = value
			}
			in = in[n:]
		case kind == protowire.VarintType && number == 3:
			value, n := protowire.ConsumeVarint(in)
			if n < 0 {
				return out, protowire.ParseError(n)
			}
			out.number = value
			in = in[n:]
		default:
			return out, fmt.Errorf("unexpected field %d of type %d", number, kind)
		}
	}
	return out, nil
}

// receiver is the reading half of every stream.
type receiver interface{ RecvMsg(m any) error }

func receive(stream receiver) (reply, error) {
	var message []byte
	if err := stream.RecvMsg(&message); err != nil {
		return reply{}, err
	}
	return decode(message)
}

// receiveAll reads to the end; a stream that ends well gives no error.
func receiveAll(stream receiver) ([]reply, error) {
	var all []reply
	for {
		one, err := receive(stream)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, one)
	}
}
