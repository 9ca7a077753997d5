"""FastAPI's tutorial: items, request bodies, forms and files, streaming responses, server-sent events, WebSockets."""

import asyncio
import hashlib

from fastapi import FastAPI, File, Form, UploadFile, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

app = FastAPI()
left = {"streams": 0, "sockets": []}


class Item(BaseModel):
    name: str
    price: float
    is_offer: bool | None = None


@app.get("/")
def read_root():
    return {"Hello": "World"}


@app.get("/items/{item_id}")
def read_item(item_id: int, q: str | None = None):
    return {"item_id": item_id, "q": q}


@app.put("/items/{item_id}")
def update_item(item_id: int, item: Item):
    return {"item_name": item.name, "item_id": item_id}


@app.post("/files/")
async def create_file(file: UploadFile = File(), token: str = Form()):
    return {"name": file.filename, "sha256": hashlib.sha256(await file.read()).hexdigest(), "token": token}


@app.get("/events")
async def events(count: int, pause: float = 0.05):
    async def tell():
        try:
            for n in range(count):
                yield f"id: {n}\nevent: tick\ndata: {n}\n\n"
                await asyncio.sleep(pause)
        except asyncio.CancelledError:
            left["streams"] += 1
            raise

    return StreamingResponse(tell(), media_type="text/event-stream")


@app.get("/left")
def who_left():
    return left


@app.websocket("/items/{item_id}/ws")
async def websocket_endpoint(websocket: WebSocket, item_id: str, q: int | None = None):
    await websocket.accept()
    try:
        while True:
            data = await websocket.receive_text()
            await websocket.send_text(f"Message text was: {data}, for item ID: {item_id}, q: {q}")
    except WebSocketDisconnect as gone:
        left["sockets"].append(gone.code)
