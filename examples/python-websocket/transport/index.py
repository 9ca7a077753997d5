"""Gets each message, and sends it back to its own connection."""


def main_handler(event, context):
    if "websocket" not in event:
        return {"errNo": 102, "errMsg": "not found websocket"}
    message = event["websocket"]
    if message["dataType"] == "text" and message["data"] == "bye":
        return {"websocket": {"action": "closing", "secConnectionID": message["secConnectionID"]}}
    data = message["data"] if message["dataType"] == "binary" else "you said: " + message["data"]
    answer = {"action": "data send", "secConnectionID": message["secConnectionID"], "dataType": message["dataType"], "data": data}
    return {"websocket": answer}
