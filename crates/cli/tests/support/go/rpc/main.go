// A program as SCF's Go library makes it: the same calls and messages on the wire (github.com/tencentyun/scf-go-lib,
// cloudfunction), with nothing but the standard library.
package main

import (
	"encoding/json"
	"log"
	"net"
	"net/rpc"
	"os"
	"reflect"
	"runtime"
	"strings"

	"mayfly.example/contract/do"
)

type PingRequest struct{}
type PingResponse struct{}

type Timestamp struct{ Seconds, Nanos int64 }

type InvokeRequest struct {
	Payload               []byte
	RequestId             string
	TraceId               string
	Deadline              Timestamp
	InvokedFunctionUnique string
	ClientContext         []byte
	Namespace             string
	FunctionName          string
	FunctionVersion       string
	MemoryLimitInMb       int32
	TimeLimitInMs         int32
	Environment           string
	TencentcloudRegion    string
	TencentcloudAppID     string
	TencentcloudUin       string
	FunctionTrace         string
}

type Frame struct {
	Path  string
	Line  int32
	Label string
}

type Failure struct {
	Message    string
	Type       string
	StackTrace []*Frame
	ShouldExit bool
}

type InvokeResponse struct {
	Payload []byte
	Error   *Failure
}

type Function struct{}

func (*Function) Ping(_ *PingRequest, _ *PingResponse) error { return nil }

func (*Function) Invoke(request *InvokeRequest, response *InvokeResponse) error {
	defer func() {
		if thrown := recover(); thrown != nil {
			response.Error = &Failure{Message: "in panic", Type: "string", ShouldExit: true}
			callers := make([]uintptr, 32)
			frames := runtime.CallersFrames(callers[:runtime.Callers(1, callers)])
			for frame, more := frames.Next(); more; frame, more = frames.Next() {
				path := frame.File
				if frame.Function == "runtime.gopanic" {
					path = "runtime/panic.go"
				} else if strings.HasPrefix(frame.Function, "reflect.") {
					path = "reflect/value.go"
				}
				response.Error.StackTrace = append(response.Error.StackTrace, &Frame{path, int32(frame.Line), frame.Function})
			}
		}
	}()
	var event do.Event
	if err := json.Unmarshal(request.Payload, &event); err != nil {
		response.Error = &Failure{Message: err.Error(), Type: reflect.TypeOf(err).Elem().Name()}
		return nil
	}
	var value interface{}
	var err error
	if event.Do == "context" {
		value = map[string]interface{}{
			"function_name": request.FunctionName, "function_version": request.FunctionVersion, "namespace": request.Namespace,
			"memory_limit_in_mb": request.MemoryLimitInMb, "time_limit_in_ms": request.TimeLimitInMs,
			"request_id": request.RequestId, "environment": request.Environment, "deadline": request.Deadline.Seconds,
			"region": request.TencentcloudRegion, "appid": request.TencentcloudAppID, "uin": request.TencentcloudUin,
		}
	} else {
		results := reflect.ValueOf(do.Do).Call([]reflect.Value{reflect.ValueOf(event)})
		value = results[0].Interface()
		err, _ = results[1].Interface().(error)
	}
	if err != nil {
		response.Error = &Failure{Message: err.Error(), Type: reflect.TypeOf(err).Elem().Name()}
		return nil
	}
	response.Payload, err = json.Marshal(value)
	return err
}

func main() {
	listener, err := net.Listen("tcp", "0.0.0.0:"+os.Getenv("_LAMBDA_SERVER_PORT"))
	if err != nil {
		log.Fatal(err)
	}
	if err := rpc.Register(new(Function)); err != nil {
		log.Fatal(err)
	}
	rpc.Accept(listener)
}
