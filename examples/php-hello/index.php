<?php

// State at the top level is kept between calls of the same instance.
$calls = 0;

function main_handler($event, $context)
{
    global $calls;
    $calls += 1;
    $name = $event->name ?? 'world';
    echo "greeting $name\n";
    return [
        'message' => "Hello, $name!",
        'php' => PHP_VERSION,
        'function' => $context->function_name,
        'version' => $context->function_version,
        'request' => $context->request_id,
        'remainingMs' => $context->getRemainingTimeInMillis(),
        'callsOfThisInstance' => $calls,
    ];
}
