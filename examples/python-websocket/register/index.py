"""Decides who comes in: everybody but those who call themselves `nobody`."""


def main_handler(event, context):
    if "requestContext" not in event:
        return {"errNo": 101, "errMsg": "not found request context"}
    if "websocket" not in event:
        return {"errNo": 102, "errMsg": "not found websocket"}
    if event.get("queryString", {}).get("name") == "nobody":
        return {"errNo": 1, "errMsg": "say who you are"}
    websocket = {"action": "connecting", "secConnectionID": event["websocket"]["secConnectionID"]}
    if "secWebSocketProtocol" in event["websocket"]:
        websocket["secWebSocketProtocol"] = event["websocket"]["secWebSocketProtocol"]
    print("came:", websocket["secConnectionID"])
    return {"errNo": 0, "errMsg": "ok", "websocket": websocket}
