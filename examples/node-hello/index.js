'use strict';

// Module-level state is kept between calls of the same instance.
let calls = 0;

exports.main_handler = async (event, context) => {
  calls += 1;
  const name = event.name ?? 'world';
  console.log(`greeting ${name}`);
  return {
    message: `Hello, ${name}!`,
    node: process.version,
    function: context.function_name,
    version: context.function_version,
    request: context.request_id,
    remainingMs: context.getRemainingTimeInMillis(),
    callsOfThisInstance: calls,
  };
};
