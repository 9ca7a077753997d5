// The same on AWS's library.
package main

import (
	"context"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"

	"mayfly.example/contract/do"
)

func handle(ctx context.Context, event do.Event) (interface{}, error) {
	if event.Do == "context" {
		c, _ := lambdacontext.FromContext(ctx)
		deadline, _ := ctx.Deadline()
		return map[string]interface{}{
			"request_id": c.AwsRequestID, "function_name": lambdacontext.FunctionName,
			"function_version": lambdacontext.FunctionVersion, "memory_limit_in_mb": lambdacontext.MemoryLimitInMB,
			"deadline": deadline.Unix(),
		}, nil
	}
	return do.Do(event)
}

func main() { lambda.Start(handle) }
