package main

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

type event struct {
	Name string `json:"name"`
}

// State of the program is kept between calls of the same instance.
var calls int

func hello(ctx context.Context, e event) (map[string]any, error) {
	calls++
	if e.Name == "" {
		e.Name = "world"
	}
	fmt.Println("greeting", e.Name)
	answer := map[string]any{
		"message":             fmt.Sprintf("Hello, %s!", e.Name),
		"go":                  runtime.Version(),
		"function":            lambdacontext.FunctionName,
		"version":             lambdacontext.FunctionVersion,
		"callsOfThisInstance": calls,
	}
	if call, ok := lambdacontext.FromContext(ctx); ok {
		answer["request"] = call.AwsRequestID
	}
	if deadline, ok := ctx.Deadline(); ok {
		answer["remainingMs"] = time.Until(deadline).Milliseconds()
	}
	return answer, nil
}

func main() {
	lambda.Start(hello)
}
