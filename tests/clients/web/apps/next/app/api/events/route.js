// A route handler that streams.
export async function GET() {
  const encoder = new TextEncoder();
  const stream = new ReadableStream({
    async start(controller) {
      for (let n = 0; n < 10; n += 1) {
        controller.enqueue(encoder.encode(`data: ${n}\n\n`));
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      controller.close();
    },
  });
  return new Response(stream, { headers: { "content-type": "text/event-stream" } });
}
