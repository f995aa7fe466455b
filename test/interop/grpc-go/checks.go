package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const service = "/castellan.test.v1.Echo/"

// patience is for what should not take long, on a machine that may stall for seconds.
const patience = 60 * time.Second

type client struct{ connection *grpc.ClientConn }

func (c *client) unary(ctx context.Context, a ask, options ...grpc.CallOption) (reply, error) {
	return c.invoke(ctx, "Unary", a, options...)
}

func (c *client) invoke(ctx context.Context, method string, a ask, options ...grpc.CallOption) (reply, error) {
	var out []byte
	options = append(options, grpc.ForceCodec(raw{}))
	if err := c.connection.Invoke(ctx, service+method, a.encode(), &out, options...); err != nil {
		return reply{}, err
	}
	return decode(out)
}

func (c *client) stream(ctx context.Context, method string) (grpc.ClientStream, error) {
	both := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	return c.connection.NewStream(ctx, both, service+method, grpc.ForceCodec(raw{}))
}

func (c *client) expand(ctx context.Context, a ask) (grpc.ClientStream, error) {
	one := &grpc.StreamDesc{ServerStreams: true}
	stream, err := c.connection.NewStream(ctx, one, service+"Expand", grpc.ForceCodec(raw{}))
	if err != nil {
		return nil, err
	}
	if err := stream.SendMsg(a.encode()); err != nil {
		return nil, err
	}
	return stream, stream.CloseSend()
}

func background() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}

func wantCode(err error, want codes.Code) error {
	if got := status.Code(err); got != want {
		return fmt.Errorf("code %v instead of %v: %v", got, want, err)
	}
	return nil
}

func unary(c *client) error {
	ctx, cancel := background()
	defer cancel()
	got, err := c.unary(ctx, ask{text: "grüße"})
	if err == nil && got.text != "grüße" {
		err = fmt.Errorf("got %q", got.text)
	}
	return err
}

func largeUnary(c *client) error {
	ctx, cancel := background()
	defer cancel()
	payload := bytes.Repeat([]byte{7}, 900_000)
	got, err := c.unary(ctx, ask{payload: payload})
	if err == nil && !bytes.Equal(got.payload, payload) {
		err = fmt.Errorf("got %d other bytes", len(got.payload))
	}
	return err
}

func inOrder(all []reply, want int) error {
	for i, one := range all {
		if one.number != uint64(i) {
			return fmt.Errorf("message %d has number %d", i, one.number)
		}
	}
	if len(all) != want {
		return fmt.Errorf("%d messages instead of %d", len(all), want)
	}
	return nil
}

func expandInOrder(ctx context.Context, c *client, count int) error {
	stream, err := c.expand(ctx, ask{count: uint64(count), text: strings.Repeat("x", 50)})
	if err != nil {
		return err
	}
	all, err := receiveAll(stream)
	return errors.Join(err, inOrder(all, count))
}

func serverStream(c *client) error {
	ctx, cancel := background()
	defer cancel()
	return expandInOrder(ctx, c, 5000)
}

func emptyStream(c *client) error {
	ctx, cancel := background()
	defer cancel()
	return expandInOrder(ctx, c, 0)
}

func clientStream(c *client) error {
	ctx, cancel := background()
	defer cancel()
	stream, err := c.stream(ctx, "Collect")
	if err != nil {
		return err
	}
	for range 2000 {
		if err := stream.SendMsg(ask{text: "x"}.encode()); err != nil {
			return err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	got, err := receive(stream)
	if err == nil && got.number != 2000 {
		err = fmt.Errorf("%d messages arrived", got.number)
	}
	return err
}

func bidi(c *client) error {
	ctx, cancel := background()
	defer cancel()
	stream, err := c.stream(ctx, "Chat")
	if err != nil {
		return err
	}
	for i := range 50 {
		text := fmt.Sprint(i)
		if err := stream.SendMsg(ask{text: text}.encode()); err != nil {
			return err
		}
		got, err := receive(stream)
		if err != nil {
			return err
		}
		if got.text != text {
			return fmt.Errorf("%q came back as %q", text, got.text)
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	all, err := receiveAll(stream)
	return errors.Join(err, inOrder(all, 0))
}

func details(c *client) error {
	ctx, cancel := background()
	defer cancel()
	_, err := c.unary(ctx, ask{fail: "ERR_CSR"})
	got := status.Convert(err)
	if got.Code() != codes.InvalidArgument || got.Message() != "asked to fail, 100 % “ERR_CSR”" {
		return fmt.Errorf("got %v", err)
	}
	var field string
	var delay time.Duration
	for _, detail := range got.Details() {
		switch detail := detail.(type) {
		case *errdetails.BadRequest:
			field = detail.FieldViolations[0].Field
		case *errdetails.RetryInfo:
			delay = detail.RetryDelay.AsDuration()
		}
	}
	if field != "fail" || delay != 1500*time.Millisecond {
		return fmt.Errorf("details %v", got.Details())
	}
	return nil
}

func lateError(c *client) error {
	ctx, cancel := background()
	defer cancel()
	stream, err := c.expand(ctx, ask{count: 10, fail: "ERR_DENIED"})
	if err != nil {
		return err
	}
	all, err := receiveAll(stream)
	return errors.Join(wantCode(err, codes.PermissionDenied), inOrder(all, 10))
}

func plainError(c *client) error {
	ctx, cancel := background()
	defer cancel()
	_, err := c.unary(ctx, ask{fail: "PLAIN"})
	if got := status.Convert(err).Message(); got != "internal error" {
		return fmt.Errorf("got %q", got)
	}
	return wantCode(err, codes.Internal)
}

func unknownMethod(c *client) error {
	ctx, cancel := background()
	defer cancel()
	_, err := c.invoke(ctx, "Nothing", ask{})
	return wantCode(err, codes.Unimplemented)
}

func compressed(c *client) error {
	ctx, cancel := background()
	defer cancel()
	_, err := c.unary(ctx, ask{text: "small when packed"}, grpc.UseCompressor(gzip.Name))
	return wantCode(err, codes.Unimplemented)
}

func deadlines(c *client) error {
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	_, err := c.unary(ctx, ask{hang: true})
	if err := wantCode(err, codes.DeadlineExceeded); err != nil {
		return err
	}
	later, cancelLater := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancelLater()
	stream, err := c.expand(later, ask{count: 3, hang: true})
	if err != nil {
		return err
	}
	all, err := receiveAll(stream)
	return errors.Join(wantCode(err, codes.DeadlineExceeded), inOrder(all, 3))
}

func cancels(c *client) error {
	for range 200 {
		ctx, cancel := background()
		stream, err := c.expand(ctx, ask{count: 1, hang: true})
		if err != nil {
			cancel()
			return err
		}
		if _, err := receive(stream); err != nil {
			cancel()
			return err
		}
		cancel()
		if _, err := receive(stream); status.Code(err) != codes.Canceled {
			return fmt.Errorf("got %v", err)
		}
	}
	return unary(c)
}

func largeMetadata(c *client) error {
	ctx, cancel := background()
	defer cancel()
	large := metadata.AppendToOutgoingContext(ctx, "filler", strings.Repeat("x", 40_000))
	if _, err := c.unary(large, ask{}); err == nil {
		return errors.New("was accepted")
	}
	return unary(c)
}
