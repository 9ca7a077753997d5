"""An HTTP function: runs for each request, and is not there between them."""

import html


def main_handler(event, context):
    who = event["queryString"].get("who", "stranger")
    if not isinstance(who, str):
        who = who[0]
    return {
        "statusCode": 200,
        "headers": {"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store"},
        "body": "<h1>Hello, %s!</h1><p>You asked for %s.</p>\n" % (html.escape(who), html.escape(event["path"])),
    }
