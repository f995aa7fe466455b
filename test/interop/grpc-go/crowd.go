package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
)

// The server is started with a limit of 1 MiB.
var tooLarge = ask{payload: bytes.Repeat([]byte{1}, 2<<20)}

// together runs n of them at once and joins their errors.
func together(n int, run func(i int) error) error {
	failures := make([]error, n)
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() { failures[i] = run(i) })
	}
	group.Wait()
	return errors.Join(failures...)
}

func oversized(c *client) error {
	ctx, cancel := background()
	defer cancel()
	err := together(40, func(i int) error {
		if i%10 != 0 {
			return unary(c)
		}
		_, err := c.unary(ctx, tooLarge)
		return wantCode(err, codes.ResourceExhausted)
	})
	if err != nil {
		return err
	}
	for i := range 100 {
		if err := unary(c); err != nil {
			return fmt.Errorf("call %d after it: %w", i, err)
		}
	}
	return nil
}

func oversizedOften(c *client) error {
	ctx, cancel := background()
	defer cancel()
	for i := range 150 {
		_, err := c.unary(ctx, tooLarge)
		if err := wantCode(err, codes.ResourceExhausted); err != nil {
			return fmt.Errorf("message %d: %w", i, err)
		}
	}
	return together(200, func(i int) error {
		if i%2 == 0 {
			return unary(c)
		}
		_, err := c.unary(ctx, tooLarge)
		return wantCode(err, codes.ResourceExhausted)
	})
}

func crowd(c *client) error {
	ctx, cancel := background()
	defer cancel()
	return together(250, func(i int) error {
		for range 4 {
			if err := expandInOrder(ctx, c, 20); err != nil {
				return fmt.Errorf("goroutine %d: %w", i, err)
			}
			if err := unary(c); err != nil {
				return fmt.Errorf("goroutine %d: %w", i, err)
			}
		}
		return nil
	})
}

func health(c *client) error {
	ctx, cancel := background()
	defer cancel()
	asked := healthpb.NewHealthClient(c.connection)
	got, err := asked.Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		return err
	}
	if got.Status != healthpb.HealthCheckResponse_SERVING {
		return fmt.Errorf("got %v", got.Status)
	}
	_, err = asked.Check(ctx, &healthpb.HealthCheckRequest{Service: "nothing"})
	return wantCode(err, codes.NotFound)
}

func reflection(c *client) error {
	ctx, cancel := background()
	defer cancel()
	stream, err := reflectionpb.NewServerReflectionClient(c.connection).ServerReflectionInfo(ctx)
	if err != nil {
		return err
	}
	question := &reflectionpb.ServerReflectionRequest_ListServices{ListServices: "*"}
	err = stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: question})
	if err != nil {
		return err
	}
	answer, err := stream.Recv()
	if err != nil {
		return err
	}
	services := answer.GetListServicesResponse().GetService()
	if len(services) == 0 || services[0].Name != "castellan.test.v1.Echo" {
		return fmt.Errorf("got %v", services)
	}
	return stream.CloseSend()
}

// drain has 20 streams of each kind and a unary call open when the server is told to go.
func drain(c *client) error {
	ctx, cancel := background()
	defer cancel()
	var streams []grpc.ClientStream
	for range 20 {
		chat, err := c.stream(ctx, "Chat")
		if err != nil {
			return err
		}
		if err := chat.SendMsg(ask{text: "x"}.encode()); err != nil {
			return err
		}
		expand, err := c.expand(ctx, ask{count: 1, hang: true})
		if err != nil {
			return err
		}
		streams = append(streams, chat, expand)
	}
	for _, stream := range streams {
		if _, err := receive(stream); err != nil {
			return err
		}
	}
	inFlight := make(chan error, 1)
	go func() {
		held := metadata.AppendToOutgoingContext(context.WithoutCancel(ctx), "until-drain", "1")
		_, err := c.unary(held, ask{text: "in flight"})
		inFlight <- err
	}()
	fmt.Println("DRAIN")
	for i, stream := range streams {
		_, err := receive(stream)
		if status.Code(err) != codes.Unavailable || status.Convert(err).Message() != "the server is closing" {
			return fmt.Errorf("stream %d: %v", i, err)
		}
	}
	return <-inFlight
}
