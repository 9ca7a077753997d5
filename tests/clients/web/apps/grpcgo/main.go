// gRPC's own interoperability suite, as grpc-go has it: `main` serves, `main ADDRESS AUTHORITY CASE...` runs cases against a server.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
)

var cases = []struct {
	name string
	run  func(context.Context, testgrpc.TestServiceClient, *grpc.ClientConn)
}{
	{"empty_unary", func(ctx context.Context, c testgrpc.TestServiceClient, _ *grpc.ClientConn) { interop.DoEmptyUnaryCall(ctx, c) }},
	{"large_unary", func(ctx context.Context, c testgrpc.TestServiceClient, _ *grpc.ClientConn) { interop.DoLargeUnaryCall(ctx, c) }},
	{"client_streaming", func(ctx context.Context, c testgrpc.TestServiceClient, _ *grpc.ClientConn) { interop.DoClientStreaming(ctx, c) }},
	{"server_streaming", func(ctx context.Context, c testgrpc.TestServiceClient, _ *grpc.ClientConn) { interop.DoServerStreaming(ctx, c) }},
	{"ping_pong", func(ctx context.Context, c testgrpc.TestServiceClient, _ *grpc.ClientConn) { interop.DoPingPong(ctx, c) }},
	{"empty_stream", func(ctx context.Context, c testgrpc.TestServiceClient, _ *grpc.ClientConn) { interop.DoEmptyStream(ctx, c) }},
	{"timeout_on_sleeping_server", func(ctx context.Context, c testgrpc.TestServiceClient, _ *grpc.ClientConn) { interop.DoTimeoutOnSleepingServer(ctx, c) }},
	{"cancel_after_begin", func(ctx context.Context, c testgrpc.TestServiceClient, _ *grpc.ClientConn) { interop.DoCancelAfterBegin(ctx, c) }},
	{"cancel_after_first_response", func(ctx context.Context, c testgrpc.TestServiceClient, _ *grpc.ClientConn) { interop.DoCancelAfterFirstResponse(ctx, c) }},
	{"status_code_and_message", func(ctx context.Context, c testgrpc.TestServiceClient, _ *grpc.ClientConn) { interop.DoStatusCodeAndMessage(ctx, c) }},
	{"special_status_message", func(ctx context.Context, c testgrpc.TestServiceClient, _ *grpc.ClientConn) { interop.DoSpecialStatusMessage(ctx, c) }},
	{"custom_metadata", func(ctx context.Context, c testgrpc.TestServiceClient, _ *grpc.ClientConn) { interop.DoCustomMetadata(ctx, c) }},
	{"unimplemented_method", func(ctx context.Context, _ testgrpc.TestServiceClient, conn *grpc.ClientConn) { interop.DoUnimplementedMethod(ctx, conn) }},
	{"unimplemented_service", func(ctx context.Context, _ testgrpc.TestServiceClient, conn *grpc.ClientConn) {
		interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(conn))
	}},
}

func main() {
	if len(os.Args) < 3 {
		listener, err := net.Listen("tcp", ":9000")
		if err != nil {
			panic(err)
		}
		server := grpc.NewServer()
		testgrpc.RegisterTestServiceServer(server, interop.NewTestServer())
		if err := server.Serve(listener); err != nil {
			panic(err)
		}
		return
	}
	conn, err := grpc.NewClient("passthrough:///"+os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority(os.Args[2]))
	if err != nil {
		panic(err)
	}
	client := testgrpc.NewTestServiceClient(conn)
	for _, one := range cases {
		// A case that fails ends the program with its reason.
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		fmt.Fprintln(os.Stderr, one.name)
		one.run(ctx, client, conn)
		cancel()
	}
	fmt.Printf("%d cases\n", len(cases))
}
