module mayfly.example/contract/lambda

go 1.19

require (
	github.com/aws/aws-lambda-go v1.49.0
	mayfly.example/contract v0.0.0
)

replace mayfly.example/contract => ../
