"""The smallest useful function: it greets, and says where it runs."""

import platform

# Module-level state is kept between calls of the same instance.
calls = 0


def main_handler(event, context):
    global calls
    calls += 1
    name = event.get("name", "world")
    print(f"greeting {name}")
    return {
        "message": f"Hello, {name}!",
        "python": platform.python_version(),
        "function": context["function_name"],
        "version": context["function_version"],
        "request": context["request_id"],
        "calls_of_this_instance": calls,
    }
