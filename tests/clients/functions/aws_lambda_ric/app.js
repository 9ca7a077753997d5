'use strict';
let calls = 0;

exports.handler = async (event, context) => {
  calls += 1;
  console.log('aws-lambda-ric call', calls, JSON.stringify(event));
  if (event.fail) throw new RangeError('asked to fail');
  const left = context.getRemainingTimeInMillis();
  return { hello: event.name, calls, request_id: context.awsRequestId, function: context.functionName, memory: Number(context.memoryLimitInMB), left: left > 0 && left <= 5000 };
};
