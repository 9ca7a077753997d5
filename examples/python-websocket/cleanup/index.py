"""Hears of each end, also of those that a crash of the platform brought about."""


def main_handler(event, context):
    print("went:", event["websocket"]["secConnectionID"])
